# Each kind of stick: the image is copied to it, taken along, and used by a user who has never seen it.
. /guest/functions.sh

on_a_stick() {
    rm -rf /home/user/.local
    udisks "$1" "$2" /media/stick "$3" || return 9
    image_as /home/image
    su user -c "cp /home/image /media/stick/app.com" || return 8
    umount /media/stick || return 7
    rm /home/image
    udisks "$1" "$2" /media/stick "$3" || return 6
    as_user /media/stick/app.com /guest/stick.sh || return
    # As soon as the last command has returned.
    umount /media/stick || return 5
    udisks "$1" "$2" /media/stick "$3,ro" || return 4
    echo --
    as_user /media/stick/tool.com -c '"\$IMAGE fim-exec cat /etc/note"' || return
    umount /media/stick
}

vfat() {
    on_a_stick vfat /dev/vda $VFAT
}

exfat() {
    on_a_stick exfat /dev/vdb $EXFAT
}

# The kernel decides by the name when it first reads the entry.
names() {
    from=tool.com
    for name in tool other.com; do
        udisks vfat /dev/vda /media/stick $VFAT || return 9
        mv /media/stick/$from /media/stick/$name || return 8
        umount /media/stick
        udisks vfat /dev/vda /media/stick $VFAT || return 9
        as_user /media/stick/$name -c '"\$IMAGE fim-exec true; echo \$?"'
        umount /media/stick
        from=$name
    done
}

for case in vfat exfat names; do run $case; done
finish
