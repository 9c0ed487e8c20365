# What the new user does; $IMAGE is the image on the stick.
"$IMAGE" || exit
echo --
"$IMAGE" fim-root sh -c "$(cat /guest/show.sh)" || exit
echo --
"$IMAGE" fim-root sh -c "dpkg --audit; dpkg -s cron | grep ^Status; su -s /bin/sh daemon -c 'id -un'" || exit
echo --
"$IMAGE" fim-root sh -c 'echo kept > /etc/note' || exit
"$IMAGE" fim-exec cat /etc/note || exit
echo --
"$IMAGE" fim-data path || exit
echo --
ls -A
echo --
# Under another name, and through a link.
mv app.com tool.com
./tool.com fim-exec cat /etc/note || exit
echo --
ln -sf "$PWD/tool.com" /home/user/tool
/home/user/tool fim-exec cat /etc/note
