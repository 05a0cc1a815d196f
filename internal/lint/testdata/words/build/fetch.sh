# TODO: finish this. want "unfinished work"
curl https://proxy.golang.org/example # want "registry's host"
cp "$dir/work/kernel" "$work/home/a"
