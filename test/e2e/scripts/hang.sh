# A scenario that never ends.
sleep infinity
