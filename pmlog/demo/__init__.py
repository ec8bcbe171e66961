"""The demo: real flights, processes that are really killed, a host that is really lost.

`application` is what a user of the library would write; everything else here sets its stage,
takes its host away, and compares what is left with plain Python.
"""
