/* Asks the session bus for a name: `own NAME` prints `owner=N`, the answer to RequestName (D-Bus specification), or
 * `error=NAME`, and stays until its standard input ends. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static unsigned char out[1024], in[65536];
static size_t end;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void align(size_t to)
{
    while (end % to)
        out[end++] = 0;
}

static void number(uint32_t value)
{
    align(4);
    memcpy(out + end, &value, 4);
    end += 4;
}

static void string(const char *text)
{
    number(strlen(text));
    end += sprintf((char *)out + end, "%s", text) + 1;
}

static void field(unsigned char code, char type, const char *value)
{
    align(8);
    out[end++] = code;
    end += sprintf((char *)out + end, "\1%c", type) + 1;
    if (type == 'g') {
        out[end++] = strlen(value);
        end += sprintf((char *)out + end, "%s", value) + 1;
    } else {
        string(value);
    }
}

/* A call of the bus's own object: Hello, or RequestName of a name. */
static void call(int bus, uint32_t serial, const char *member, const char *name)
{
    uint32_t body = name ? (4 + strlen(name) + 1 + 3) / 4 * 4 + 4 : 0, fields;
    memcpy(out, "l\1\0\1", 4);
    end = 4;
    number(body);
    number(serial);
    number(0);
    field(1, 'o', "/org/freedesktop/DBus");
    field(2, 's', "org.freedesktop.DBus");
    field(3, 's', member);
    field(6, 's', "org.freedesktop.DBus");
    if (name)
        field(8, 'g', "su");
    fields = end - 16;
    memcpy(out + 12, &fields, 4);
    align(8);
    if (name) {
        string(name);
        number(4); /* DBUS_NAME_FLAG_DO_NOT_QUEUE */
    }
    if (write(bus, out, end) != (ssize_t)end)
        fail("write");
}

static void need(int bus, size_t at, size_t len)
{
    if (len && recv(bus, in + at, len, MSG_WAITALL) != (ssize_t)len)
        fail("read");
}

/* The next answer; its type is 2, or 3 for an error. The body begins at what comes back. */
static unsigned char *answer(int bus)
{
    uint32_t body, fields;
    do {
        need(bus, 0, 16);
        memcpy(&body, in + 4, 4);
        memcpy(&fields, in + 12, 4);
        fields = (fields + 7) / 8 * 8;
        need(bus, 16, fields + body);
    } while (in[1] != 2 && in[1] != 3);
    return in + 16 + fields;
}

int main(int argc, char **argv)
{
    const char *address = getenv("DBUS_SESSION_BUS_ADDRESS");
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    char line[256], user[32];
    int bus = socket(AF_UNIX, SOCK_STREAM, 0);
    if (argc != 2 || !address || strncmp(address, "unix:path=", 10))
        return 2;
    strncpy(un.sun_path, address + 10, sizeof un.sun_path - 1);
    if (connect(bus, (void *)&un, sizeof un))
        fail("connect");
    sprintf(user, "%u", getuid());
    int len = sprintf(line, "%cAUTH EXTERNAL ", 0);
    for (char *digit = user; *digit; digit++)
        len += sprintf(line + len, "%02x", *digit);
    len += sprintf(line + len, "\r\n");
    if (write(bus, line, len) != len || read(bus, line, sizeof line) < 2 || strncmp(line, "OK", 2))
        fail("authenticate");
    if (write(bus, "BEGIN\r\n", 7) != 7)
        fail("begin");
    call(bus, 1, "Hello", NULL);
    answer(bus);
    call(bus, 2, "RequestName", argv[1]);
    unsigned char *body = answer(bus);
    if (in[1] == 2) {
        printf("owner=%u\n", *body);
    } else {
        for (unsigned char *at = in + 16; at < body; at++)
            if (!memcmp(at, "org.freedesktop.DBus.Error", 26)) {
                printf("error=%s\n", at);
                break;
            }
    }
    fflush(stdout);
    while (read(0, line, sizeof line) > 0)
        ;
    return 0;
}
