# What the cases of a guest with users have in common. /home lies on /dev/vdc, the image on /dev/vdd.
. /guest/report.sh
printf 'root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n' > /etc/passwd
printf 'user:x:1000:\n' > /etc/group
chmod 1777 /tmp
chmod 666 /dev/fuse /dev/null
mount -t ext4 /dev/vdc /home
mkdir /home/user
chown -R 1000:1000 /home/user /run/user/1000
chmod 700 /run/user/1000

# The image of the host, as the file $1 of the user's.
image_as() {
    head -c "$(cat /guest/image-size)" /dev/vdd > "$1"
    chmod 755 "$1"
    chown 1000:1000 "$1"
}

# A script as the user, with the rest of the words as its arguments; $IMAGE is the image.
as_user() {
    image=$1
    shift
    su user -c "cd ${image%/*} && HOME=/home/user XDG_RUNTIME_DIR=/run/user/1000 IMAGE=$image exec sh $*"
}

# As udisks does it.
udisks() {
    mkdir -p "$3"
    mount -t "$1" -o "nosuid,nodev,relatime,uid=1000,gid=1000,fmask=0022,dmask=0022,$4" "$2" "$3"
}

# What it gives a FAT and an exFAT stick besides.
VFAT=shortname=mixed,utf8=1,showexec,flush
EXFAT=iocharset=utf8,errors=remount-ro
