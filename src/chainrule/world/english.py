"""How the world is said in English: the words, and the phrases of every event."""

from chainrule.world.tongue import Tongue

NAMES = (
    "Tom Anna Ben Lily Jack Mary Sam Lucy Max Emma Leo Kate Bob Rose Paul Jane Mark Amy Nick Sara Fred Ella Hugo Nora "
    "Ivan Ruth Otto Iris Dan Eve"
).split()
PLACES = "library room park school market station hospital museum bakery garden river farm bank cinema office harbor".split()
THINGS = (
    "apple book pen cup hat egg cake ball kite stone shell coin key lamp map jar rose toy bell pear stamp candle ribbon spoon"
).split()
JOBS = (
    "teacher doctor farmer baker driver painter singer nurse writer pilot cook tailor sailor guard dancer student judge miner "
    "barber porter"
).split()
ANIMALS = (
    "bird dog cat horse duck goat sheep frog bear fox wolf mouse rabbit hen cow pig deer owl snail bee crab swan mole whale"
).split()

ENGLISH = Tongue(
    code="en",
    names=tuple(NAMES),
    places=tuple(f"the {place}" for place in PLACES),
    one=tuple(THINGS),
    many=tuple(f"{thing}s" for thing in THINGS),
    jobs=tuple(JOBS),
    natures=(
        "young ",
        "kind ",
        "tall ",
        "quiet ",
        "happy ",
        "brave ",
        "funny ",
        "clever ",
        "gentle ",
        "busy ",
        "strong ",
        "polite ",
        "shy ",
        "cheerful ",
        "careful ",
        "patient ",
        "lucky ",
        "sleepy ",
        "proud ",
        "calm ",
        "bold ",
        "neat ",
        "wise ",
        "sweet ",
        "frank ",
        "merry ",
        "loyal ",
        "modest ",
    ),
    weathers=("sunny", "rainy", "cloudy", "windy", "cold", "warm", "foggy", "snowy"),
    manners=("", "quickly ", "slowly ", "happily ", "quietly ", "soon ", "then ", "later ", "again "),
    openings=("This is a story. ", "Here is what I know. ", "Listen to this. ", "Let me tell you a story. "),
    endings=("The end.", "That is all for now.", "And so the day ended.", "Everyone went home."),
    moves=("went to", "walked to", "ran to", "drove to", "moved to", "rode to", "hurried to", "returned to"),
    gets=("bought", "found", "made", "picked up", "borrowed", "won", "received"),
    loses=("lost", "sold", "broke", "dropped", "forgot"),
    becomes=("became a", "started work as a"),
    likes=("likes", "met", "helped", "visited", "called", "thanked", "greeted", "praised"),
    counts=("counts:", "works out:"),
    gives=("gave", "sent", "handed"),
    scenes=("A ", "One "),
    sizes=("small ", "big ", "thin ", "round ", "old ", "little ", "huge ", "tiny ", "slim ", "fat ", "weak ", "tame "),
    colours=("red ", "blue ", "green ", "white ", "black ", "brown ", "grey ", "golden ", "pink ", "silver "),
    animals=tuple(f"{animal} " for animal in ANIMALS),
    cries=(
        "sang. ",
        "slept. ",
        "danced. ",
        "jumped. ",
        "waited. ",
        "played. ",
        "hid. ",
        "rested. ",
        "swam. ",
        "dug. ",
        "yawned. ",
        "sat. ",
    ),
    how=("loudly ", "softly ", "gladly ", "calmly ", "boldly ", "lazily ", "sadly ", "safely ", "rarely ", "often "),
    near="near {place} ",
    today="Today ",
    came="I came to {place}. ",
    fronted="to {place} I came. ",
    weather=("the weather is {weather}. ", "it is {weather}. "),
    course=("I study how smart programs are made. ", "I learn how smart programs are made. "),
    arrivals=("There was a ", "I know a ", "I met a ", "In the town lived a "),
    described="{nature}person called ",
    called="{name}. ",
    is_at=("{name} is in {place}. ", "{name} stays in {place}. "),
    holds=("{name} has {things}. ", "{name} owns {things}. "),
    subject="{name} ",
    now=("Now {name} has {things}. ", "So {name} has {things}. "),
    ask="Now tell me. ",
    where=("Where is {name}? ", "In which place is {name}? "),
    what_job=("What is the job of {name}? ", "What work does {name} do? "),
    has_job=("{name} is a {job}. ", "{name} works as a {job}. "),
    plus="{a} + {b} = ",
    minus="{a} - {b} = ",
    result="{c}. ",
    to_place="{place}. ",
    some_things="{things}. ",
    to_whom="{name} ",
    a_job="{job}. ",
    whom="{name}. ",
    none="0 {things}",
    some="{n} {things}",
    how_many=("How many {things} does {name} have? ", "What number of {things} does {name} have? "),
    sums="Sums: ",
    programs="Programs: ",
    prints="{code} prints {output}. ",
)
