# Daemons are killed and started under load; see test/e2e/restart.
exec ./restart /dev/ubdb /dev/ubdc /dev/ubdd
