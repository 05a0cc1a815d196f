# The daemon with the engine is killed and started under writers; see
# test/e2e/restart. How often is in the file samples.
exec ./restart pauses "$(cat samples)" /dev/ubdb /dev/ubdc /dev/ubdd
