#!/bin/busybox sh
# The first process of a test VM. It shows the host's files, read-only, at their
# own paths, with memory over the folders that tests write to, runs one script
# of the host's there, and switches the machine off.
#
# From the kernel's command line: `unfreed.keep=FOLDER:FOLDER` are folders of
# the host that memory must not hide, `unfreed.job=FILE` is the script.

say() {
    echo "unfreed-vm: $*" >/dev/ttyS1
}

give_up() {
    say "broken: $*"
    /bin/busybox poweroff -f
}

/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev

# A test may say nothing for minutes: this is by what the host tells a VM that
# works from one that died. On the console, where it cuts no line of a test in two.
while :; do
    echo "unfreed-vm: alive $(cut -d ' ' -f 1 /proc/uptime)" >/dev/console
    sleep 5
done &
renice -n -20 -p $!

for word in $(cat /proc/cmdline); do
    case $word in
        unfreed.keep=*) keep=$(echo "${word#*=}" | tr : ' ') ;;
        unfreed.job=*) job=${word#*=} ;;
    esac
done

# Modules, where these are not built in. Each round loads those whose needs the
# rounds before have met.
for round in 1 2 3 4; do
    for file in /modules/*.ko; do
        insmod "$file" 2>/dev/null && rm "$file"
    done
done

mount -t virtiofs -o ro host /host || give_up "the host's files"
mount -o bind /host /root || give_up "a root"
for folder in /tmp /run /var/tmp; do
    mount -t tmpfs tmpfs /root$folder || give_up "memory over $folder"
done
chmod 1777 /root/tmp /root/var/tmp
for folder in $keep; do
    case $folder in
        /tmp/*|/run/*|/var/tmp/*)
            mkdir -p "/root$folder"
            mount -o bind "/host$folder" "/root$folder" || give_up "$folder"
            ;;
    esac
done
mount -t proc proc /root/proc
mount -t sysfs sysfs /root/sys
mount -t devtmpfs dev /root/dev
mkdir -p /root/dev/shm /root/dev/pts
mount -t tmpfs tmpfs /root/dev/shm
mount -t devpts devpts /root/dev/pts
mount -t tracefs tracefs /root/sys/kernel/tracing
mount -t bpf bpf /root/sys/fs/bpf
ln -s /proc/self/fd /root/dev/fd 2>/dev/null
ip link set lo up
hostname vm
echo 1 >/proc/sys/kernel/printk

say "ready $(uname -r) $(cut -d ' ' -f 1 /proc/uptime)"
chroot /root /bin/sh "$job" >/dev/ttyS1 2>&1 </dev/null
say "end $? $(cut -d ' ' -f 1 /proc/uptime)"
poweroff -f
