"""Encoding on a Ray cluster: the workers decode and encode; this process plans the items and writes the shards.

runner    items -> source shards -> pool -> rows, in any order
pool      workers on the machines of the cluster; a lost worker is replaced, and its shards are encoded again
worker    source shard -> rows, in a process of its own that loads the encoder once
cluster   the connection, and the machines
"""
