"""Writes to a collection while it serves: a durable log beside the versions, and the items that it changes in memory.

    <collection>/writes.sqlite    the last write of each item (SQLite, write-ahead log)
    <collection>/writes.head      number of the last acknowledged write
    <collection>/writes.lock      held by the one process that may write

A version holds the writes up to a number that its manifest names. Later ones are *pending*: they are read from the log
when the version is opened, and searched beside its index until `lookalike compact` has built the next version.
"""
