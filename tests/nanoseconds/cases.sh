# A layer as the kernel's own squashfs shows it; listing.sh is what the host lists the source with.
. /guest/report.sh

squashfs() {
    mount -t squashfs /dev/vda /media && cd /media && . /guest/listing.sh
}

run squashfs
finish
