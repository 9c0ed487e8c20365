#!/bin/busybox sh
# First program of the guest: loads what stands in /modules and goes on in a root that pivot_root(2) takes.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module"; done < /modules/order
mount -t tmpfs root /new
cp -a /bin /guest /new/
mkdir -p /new/proc /new/sys /new/dev /new/tmp /new/home /new/media /new/etc /new/run/user/1000
for name in proc sys dev; do mount --move /$name /new/$name; done
# As service managers do: what the host unmounts, sessions unmount too.
mount --make-rshared /new
exec switch_root /new /bin/sh /guest/cases.sh
