# A scenario whose kernel dies.
echo c >/proc/sysrq-trigger
exit 0
