# A scenario that fails.
exit 7
