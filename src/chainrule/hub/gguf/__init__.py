"""GGUF, the file of llama.cpp and ollama, read and written.

read, write         the container: header, keys, tensors, bytes
keys, tables, rope, config      its keys  <->  config.json
names, moves        its tensors  <->  the publisher's
vocab, vocab_write  its vocabulary  <->  our tokenizers
mix                 which tensor gets how many bits
model               all of it together: a file  <->  an LM
"""
