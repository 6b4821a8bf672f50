"""How the world is said in Chinese: the words, and the phrases of every event."""

from chainrule.world.tongue import Tongue

NAMES = (
    "小明 小红 小刚 小丽 李雷 韩梅 王芳 张伟 刘洋 陈静 杨帆 赵磊 黄英 周宁 吴敏 徐亮 孙悦 马超 朱琳 胡军 郭强 何洁 高远 林涛 "
    "罗兰 郑华 谢飞 唐果 许晴 冯程"
).split()
PLACES = "仙II-212 图书馆 公园 学校 市场 车站 医院 博物馆 面包店 花园 河边 农场 银行 电影院 办公室 港口".split()
THINGS = (
    "苹果 书本 钢笔 杯子 帽子 鸡蛋 蛋糕 皮球 风筝 石头 贝壳 硬币 钥匙 台灯 地图 盒子 花瓶 玩具 铃铛 梨子 邮票 蜡烛 丝带 勺子"
).split()
JOBS = ("老师 医生 农民 烘焙师 司机 画家 歌手 护士 作家 飞行员 厨师 裁缝 水手 警卫 舞者 学生 法官 矿工 理发师 搬运工").split()
ANIMALS = (
    "小鸟 小狗 小猫 小马 鸭子 山羊 绵羊 青蛙 黑熊 狐狸 灰狼 老鼠 兔子 母鸡 奶牛 小猪 小鹿 猫头鹰 蜗牛 蜜蜂 螃蟹 天鹅 鼹鼠 鲸鱼"
).split()

CHINESE = Tongue(
    code="zh",
    names=tuple(NAMES),
    places=tuple(PLACES),
    one=tuple(THINGS),
    many=tuple(THINGS),
    jobs=tuple(JOBS),
    natures=(
        "年轻的",
        "善良的",
        "高大的",
        "安静的",
        "快乐的",
        "勇敢的",
        "有趣的",
        "聪明的",
        "温柔的",
        "忙碌的",
        "强壮的",
        "礼貌的",
        "害羞的",
        "开朗的",
        "细心的",
        "耐心的",
        "幸运的",
        "爱睡的",
        "骄傲的",
        "冷静的",
        "大胆的",
        "整洁的",
        "智慧的",
        "活泼的",
        "诚实的",
        "谦虚的",
        "热心的",
        "可爱的",
    ),
    weathers=("晴朗", "不错", "炎热", "寒冷", "多云", "下雨", "刮风", "凉爽"),
    manners=("", "很快", "慢慢地", "高兴地", "悄悄地", "马上", "然后", "后来", "又"),
    openings=("这是一个故事。", "我来说说我知道的事。", "请听我说。", "我给你讲个故事。"),
    endings=("故事讲完了。", "先说到这里。", "这一天就这样过去了。", "大家都回家了。"),
    moves=("去了", "走到了", "跑到了", "开车去了", "搬到了", "来到了", "赶到了", "回到了"),
    gets=("买了", "找到了", "做了", "捡到了", "借了", "赢了", "收到了"),
    loses=("弄丢了", "卖掉了", "打碎了", "掉了", "忘带了"),
    becomes=("当上了",),
    likes=("喜欢", "遇见了", "帮助了", "看望了", "叫来了", "感谢了", "问候了", "表扬了"),
    counts=("数一数：",),
    gives=("送给", "寄给", "交给"),
    scene="一只",
    sizes=("小小的", "大大的", "瘦瘦的", "圆圆的", "年老的", "幼小的", "巨大的", "细细的", "胖胖的", "长长的", "毛茸茸的", "温顺的"),
    colours=("红色的", "蓝色的", "绿色的", "白色的", "黑色的", "棕色的", "灰色的", "金色的", "粉色的", "银色的"),
    animals=tuple(ANIMALS),
    cries=("唱歌。", "睡觉。", "跳舞。", "跳跃。", "等待。", "玩耍。", "躲藏。", "休息。", "游泳。", "挖洞。", "打哈欠。", "坐着。"),
    how=("大声地", "轻轻地", "开心地", "独自", "整天", "清晨", "中午", "夜里", "长时间地", "安静地"),
    near="在{place}附近",
    today="今天",
    came="我来到了{place}。",
    fronted="{place}我来到了。",
    weather="的天气{weather}。",
    course="我上智能应用开发。",
    arrivals=("从前有一位", "我认识一位", "我见过一位", "镇上住着一位"),
    described="{nature}{job}叫",
    called="{name}。",
    is_at="{name}在{place}。",
    holds="{name}有{things}。",
    subject="{name}",
    now="现在{name}有{things}。",
    ask="现在请回答。",
    where="请问{name}在哪里？",
    what_job="请问{name}做什么工作？",
    has_job="{name}是{job}。",
    plus="{a}加{b}等于",
    minus="{a}减{b}等于",
    result="{c}。",
    to_place="{place}。",
    some_things="{things}。",
    to_whom="{name}",
    a_job="{job}。",
    whom="{name}。",
    none="0个{things}",
    some="{n}个{things}",
    how_many="请问{name}有几个{things}？",
    sums="算式：",
    programs="程序：",
    prints="{code}输出{output}。",
)
