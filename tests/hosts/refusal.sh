# What must happen where an image cannot run. POSIX sh; $IMAGE is how the image is called.
"$IMAGE" fim-exec true
echo "start: $?"
"$IMAGE" fim-doctor 2>&1
echo "doctor: $?"
