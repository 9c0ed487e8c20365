# The cases of the guest.
. /guest/functions.sh
image_as /home/user/app
mount -t securityfs security /sys/kernel/security

old_kernel() {
    as_user /home/user/app /guest/smoke.sh
}

# The image on a stick, which can be unmounted as soon as a command has returned; three times, for it must not be luck.
on_a_stick() {
    # The first start of an image on this machine tells where its data is.
    rm -rf /home/user/.local
    for round in 1 2 3; do
        udisks "$1" "$2" /media/stick "$3" || return 9
        if [ $round = 1 ]; then
            su user -c "cp /home/user/app /media/stick/$4"
            as_user "/media/stick/$4" /guest/smoke.sh || return
        else
            # Settings are changed in place.
            as_user "/media/stick/$4" -c '"\$IMAGE fim-env set ROUND='$round' > /dev/null && \$IMAGE fim-env list | grep -qx ROUND='$round'"' || return
            as_user "/media/stick/$4" -c '"\$IMAGE fim-exec true"' || return
        fi
        umount /media/stick || return 8
    done
}

vfat() {
    on_a_stick vfat /dev/vda $VFAT app.com
}

exfat() {
    on_a_stick exfat /dev/vdb $EXFAT app
}

userns_switch() {
    sysctl -w kernel.unprivileged_userns_clone=0 > /dev/null
    as_user /home/user/app /guest/refusal.sh
    sysctl -w kernel.unprivileged_userns_clone=1 > /dev/null
}

apparmor() {
    cat /guest/policy > /sys/kernel/security/apparmor/.load || return
    cp -p /home/user/app /home/user/confined
    as_user /home/user/confined /guest/refusal.sh
}

# Two instances, one that reads and one that does not, on a stick that is pulled out.
pulled() {
    udisks exfat /dev/vdb /media/stick iocharset=utf8 || return 9
    mkfifo /tmp/started
    chmod 666 /tmp/started
    # Nothing of the image is in memory but what the starts need.
    sync
    echo 3 > /proc/sys/vm/drop_caches
    for number in 1 2; do
        as_user /media/stick/app /guest/instance.sh &
    done
    read -r line < /tmp/started
    read -r line < /tmp/started
    echo 1 > /sys/block/vdb/device/../remove
    # What udisks does when a device has gone.
    umount -l /media/stick
    wait
    ps | grep -v grep | grep fim- && return 7
    ls -A /run/user/1000/fim | grep . && return 6
    return 0
}

for case in old_kernel vfat exfat userns_switch apparmor pulled; do run $case; done
finish
