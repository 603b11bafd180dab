/*
 * A driver daemon that does nothing but answer at once, so that a benchmark measures what is in front of it.
 *
 *   stand-in-daemon SOCKET
 *
 * Listens on the UNIX socket SOCKET, prints "ready" and serves until a signal ends it. One thread, any number of
 * connections. It speaks enough of libvirt's remote protocol that a proxy opens a connection through it:
 *
 *   CONNECT_DOMAIN_XML_FROM_NATIVE   a string; the call's nativeConfig says how long the reply frame is to be
 *   STORAGE_VOL_DOWNLOAD             a stream of as many bytes as the call asks for
 *   STORAGE_VOL_UPLOAD               a stream that is read and thrown away
 *   any other call                   what its answer must have to be decoded, or nothing
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    HEADER = 28,
    HEAD_MAX = 512,           /* bytes of a call that are looked at; the rest is only counted */
    FRAME_MAX = 33554436,
    STREAM_DATA = 262120,     /* data bytes in a stream frame, as libvirt sends them */
    STRING_MAX = 4194304,
    SMALL_REPLY = 4096,       /* longer replies are sent from `filler` and never copied */
    EVENTS = 256,
    READ_BUFFER = 256 * 1024,
};

enum { PROGRAM_REMOTE = 0x20008086, PROGRAM_KEEPALIVE = 0x6b656570 };
enum { TYPE_CALL = 0, TYPE_REPLY = 1, TYPE_MESSAGE = 2, TYPE_STREAM = 3, TYPE_CALL_WITH_FDS = 4 };
enum { STATUS_OK = 0, STATUS_ERROR = 1, STATUS_CONTINUE = 2 };
enum {
    CONNECT_CLOSE = 2,
    CONNECT_GET_TYPE = 3,
    CONNECT_GET_VERSION = 4,
    CONNECT_GET_HOSTNAME = 59,
    CONNECT_SUPPORTS_FEATURE = 60,
    AUTH_LIST = 66,
    CONNECT_GET_URI = 110,
    CONNECT_DOMAIN_XML_FROM_NATIVE = 135,
    CONNECT_GET_LIB_VERSION = 157,
    STORAGE_VOL_UPLOAD = 208,
    STORAGE_VOL_DOWNLOAD = 209,
};

struct header {
    uint32_t length, program, version, procedure, type, serial, status;
};

/* A frame of `head` bytes and then `body` bytes of filler. */
struct bulk {
    unsigned char head[HEADER + 4];
    size_t head_length, body, sent;
    struct bulk *next;
};

struct stream {
    struct header call;
    uint64_t left;
    bool is_download, ended;
    struct stream *next;
};

struct connection {
    int fd;
    bool watches_out, closing;
    unsigned char head[HEAD_MAX]; /* of the frame that is arriving */
    size_t head_length;
    size_t skip;                  /* bytes of that frame still to come beyond the head */
    unsigned char *out;
    size_t out_start, out_end, out_capacity;
    struct bulk *bulk, **bulk_end;
    struct stream *streams;
};

static int poller;
static unsigned char read_buffer[READ_BUFFER];
static unsigned char filler[STRING_MAX];

static void die(const char *what)
{
    fprintf(stderr, "stand-in-daemon: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void *allocate(size_t size)
{
    void *memory = calloc(1, size);
    if (memory == NULL) die("calloc");
    return memory;
}

static uint32_t get32(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void put32(unsigned char *at, uint32_t value)
{
    at[0] = value >> 24;
    at[1] = value >> 16;
    at[2] = value >> 8;
    at[3] = value;
}

static size_t padded(size_t length)
{
    return (length + 3) & ~(size_t)3;
}

static void put_header(unsigned char *at, const struct header *call, uint32_t type, uint32_t status,
                       size_t payload)
{
    const uint32_t words[] = {HEADER + payload, call->program, call->version, call->procedure,
                              type,             call->serial,  status};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) put32(at + 4 * i, words[i]);
}

static unsigned char *reserve(struct connection *c, size_t size)
{
    if (c->out_start == c->out_end) c->out_start = c->out_end = 0;
    if (c->out_end + size > c->out_capacity) {
        memmove(c->out, c->out + c->out_start, c->out_end - c->out_start);
        c->out_end -= c->out_start;
        c->out_start = 0;
        if (c->out_end + size > c->out_capacity) {
            c->out_capacity = 2 * (c->out_end + size);
            c->out = realloc(c->out, c->out_capacity);
            if (c->out == NULL) die("realloc");
        }
    }
    c->out_end += size;
    return c->out + c->out_end - size;
}

static void send_small(struct connection *c, const struct header *call, uint32_t type, uint32_t status,
                       const void *payload, size_t length)
{
    unsigned char *at = reserve(c, HEADER + length);
    put_header(at, call, type, status, length);
    if (length > 0) memcpy(at + HEADER, payload, length);
}

static void reply(struct connection *c, const struct header *call, const void *payload, size_t length)
{
    send_small(c, call, TYPE_REPLY, STATUS_OK, payload, length);
}

static void reply_words(struct connection *c, const struct header *call, uint32_t first, uint32_t second,
                        size_t count)
{
    unsigned char payload[8];
    put32(payload, first);
    put32(payload + 4, second);
    reply(c, call, payload, 4 * count);
}

static void reply_string(struct connection *c, const struct header *call, const char *text)
{
    unsigned char payload[64] = {0};
    const size_t length = strlen(text);
    put32(payload, length);
    memcpy(payload + 4, text, length);
    reply(c, call, payload, 4 + padded(length));
}

static struct bulk *add_bulk(struct connection *c, const struct header *call, uint32_t type,
                             uint32_t status, size_t payload, size_t body)
{
    struct bulk *bulk = allocate(sizeof *bulk);
    put_header(bulk->head, call, type, status, payload);
    bulk->head_length = HEADER + payload - body;
    bulk->body = body;
    *c->bulk_end = bulk;
    c->bulk_end = &bulk->next;
    return bulk;
}

/* Replies with a string such that the whole frame has `wanted` bytes, rounded up to a multiple of four. */
static void reply_sized(struct connection *c, const struct header *call, size_t wanted)
{
    size_t length = wanted > HEADER + 4 ? padded(wanted - HEADER - 4) : 0;
    if (length > STRING_MAX) length = STRING_MAX;
    if (length <= SMALL_REPLY) {
        unsigned char payload[4 + SMALL_REPLY];
        put32(payload, length);
        memcpy(payload + 4, filler, length);
        reply(c, call, payload, 4 + length);
        return;
    }
    struct bulk *bulk = add_bulk(c, call, TYPE_REPLY, STATUS_OK, 4 + length, length);
    put32(bulk->head + HEADER, length);
}

/* Skips an XDR string; 0 when it does not lie within the bytes looked at. */
static size_t after_string(const unsigned char *frame, size_t known, size_t at)
{
    if (at == 0 || at + 4 > known) return 0;
    const size_t end = at + 4 + padded(get32(frame + at));
    return end <= known ? end : 0;
}

static void begin_stream(struct connection *c, const struct header *call, const unsigned char *frame,
                         size_t known)
{
    struct stream *stream = allocate(sizeof *stream);
    stream->call = *call;
    stream->is_download = call->procedure == STORAGE_VOL_DOWNLOAD;
    size_t at = HEADER;
    for (int strings = 0; strings < 3; strings++) at = after_string(frame, known, at);
    if (at != 0 && at + 16 <= known) {
        stream->left = (uint64_t)get32(frame + at + 8) << 32 | get32(frame + at + 12);
    }
    stream->next = c->streams;
    c->streams = stream;
    reply(c, call, NULL, 0);
}

static void stream_frame(struct connection *c, const struct header *frame)
{
    if (frame->status == STATUS_CONTINUE) return;
    for (struct stream **at = &c->streams; *at != NULL; at = &(*at)->next) {
        struct stream *stream = *at;
        if (stream->call.serial != frame->serial) continue;
        *at = stream->next;
        send_small(c, &stream->call, TYPE_STREAM, STATUS_OK, NULL, 0);
        free(stream);
        return;
    }
}

static void answer(struct connection *c, const struct header *call, const unsigned char *frame, size_t known)
{
    switch (call->procedure) {
    case CONNECT_CLOSE:
        reply(c, call, NULL, 0);
        c->closing = true;
        break;
    case AUTH_LIST:
        reply_words(c, call, 1, 0, 2);
        break;
    case CONNECT_SUPPORTS_FEATURE: {
        /* Keepalive, events and the close callback: what the server side of every daemon has. */
        const uint32_t feature = known >= HEADER + 4 ? get32(frame + HEADER) : 0;
        reply_words(c, call, feature == 10 || feature == 14 || feature == 15, 0, 1);
        break;
    }
    case CONNECT_GET_LIB_VERSION:
    case CONNECT_GET_VERSION:
        reply_words(c, call, 0, 9000000, 2);
        break;
    case CONNECT_GET_TYPE:
        reply_string(c, call, "QEMU");
        break;
    case CONNECT_GET_HOSTNAME:
        reply_string(c, call, "stand-in");
        break;
    case CONNECT_GET_URI:
        reply_string(c, call, "qemu:///system");
        break;
    case CONNECT_DOMAIN_XML_FROM_NATIVE: {
        const size_t at = after_string(frame, known, HEADER);
        char digits[16] = "";
        if (at != 0 && at + 4 + sizeof digits <= known) memcpy(digits, frame + at + 4, sizeof digits - 1);
        reply_sized(c, call, strtoul(digits, NULL, 10));
        break;
    }
    case STORAGE_VOL_UPLOAD:
    case STORAGE_VOL_DOWNLOAD:
        begin_stream(c, call, frame, known);
        break;
    default:
        reply(c, call, NULL, 0);
    }
}

/* A frame has arrived; `known` of its bytes, from its start on, can be looked at. */
static void handle(struct connection *c, const unsigned char *frame, size_t known)
{
    const struct header header = {get32(frame),      get32(frame + 4),  get32(frame + 8), get32(frame + 12),
                                  get32(frame + 16), get32(frame + 20), get32(frame + 24)};
    if (header.program == PROGRAM_KEEPALIVE) {
        struct header pong = header;
        pong.procedure = 2;
        if (header.procedure == 1) send_small(c, &pong, TYPE_MESSAGE, STATUS_OK, NULL, 0);
    } else if (header.type == TYPE_CALL || header.type == TYPE_CALL_WITH_FDS) {
        answer(c, &header, frame, known);
    } else if (header.type == TYPE_STREAM) {
        stream_frame(c, &header);
    }
}

/* Cuts bytes into frames; false when the peer sent a length that no frame has. */
static bool cut(struct connection *c, const unsigned char *at, const unsigned char *end)
{
    while (at < end) {
        const size_t there = end - at;
        if (c->head_length == 0 && there >= HEADER) {
            const size_t length = get32(at);
            if (length < HEADER || length > FRAME_MAX) return false;
            if (there >= length) {
                handle(c, at, length);
                at += length;
                continue;
            }
        }
        if (c->skip > 0) {
            const size_t part = there < c->skip ? there : c->skip;
            c->skip -= part;
            at += part;
        } else {
            size_t wanted = 4;
            if (c->head_length >= 4) {
                const size_t length = get32(c->head);
                if (length < HEADER || length > FRAME_MAX) return false;
                wanted = length < HEAD_MAX ? length : HEAD_MAX;
            }
            const size_t missing = wanted - c->head_length;
            const size_t part = there < missing ? there : missing;
            memcpy(c->head + c->head_length, at, part);
            c->head_length += part;
            at += part;
            if (c->head_length < wanted || wanted == 4) continue;
            c->skip = get32(c->head) - wanted;
        }
        if (c->skip == 0) {
            handle(c, c->head, c->head_length);
            c->head_length = 0;
        }
    }
    return true;
}

/* Queues a download's next frame: data, then the empty frame that says there is no more. */
static void feed(struct connection *c)
{
    for (struct stream *stream = c->streams; stream != NULL; stream = stream->next) {
        if (!stream->is_download || stream->ended) continue;
        const size_t size = stream->left < STREAM_DATA ? stream->left : STREAM_DATA;
        add_bulk(c, &stream->call, TYPE_STREAM, STATUS_CONTINUE, size, size);
        stream->left -= size;
        stream->ended = size == 0;
    }
}

static ssize_t send_bulk(struct connection *c)
{
    struct bulk *bulk = c->bulk;
    struct iovec parts[2];
    int count = 0;
    if (bulk->sent < bulk->head_length) {
        parts[count++] = (struct iovec){bulk->head + bulk->sent, bulk->head_length - bulk->sent};
        parts[count++] = (struct iovec){filler, bulk->body};
    } else {
        const size_t done = bulk->sent - bulk->head_length;
        parts[count++] = (struct iovec){filler + done, bulk->body - done};
    }
    const struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    const ssize_t sent = sendmsg(c->fd, &message, MSG_NOSIGNAL);
    if (sent < 0) return sent;
    bulk->sent += sent;
    if (bulk->sent == bulk->head_length + bulk->body) {
        c->bulk = bulk->next;
        if (c->bulk == NULL) c->bulk_end = &c->bulk;
        free(bulk);
    }
    return sent;
}

static ssize_t send_out(struct connection *c)
{
    const ssize_t sent = send(c->fd, c->out + c->out_start, c->out_end - c->out_start, MSG_NOSIGNAL);
    if (sent > 0) c->out_start += sent;
    return sent;
}

static void watch(struct connection *c, bool out)
{
    if (c->watches_out == out) return;
    c->watches_out = out;
    /* A peer that does not take its answers is not asked for more calls. */
    struct epoll_event event = {.events = out ? EPOLLOUT : EPOLLIN, .data.ptr = c};
    if (c->streams != NULL) event.events |= EPOLLIN;
    if (epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event) < 0) die("epoll_ctl");
}

/* Sends what there is, a few frames of a stream at a time; false when the connection is over. */
static bool flush(struct connection *c)
{
    for (int frames = 0;; frames++) {
        if (c->bulk == NULL && c->out_start == c->out_end) {
            feed(c);
            if (c->bulk == NULL) {
                if (c->closing) return false;
                watch(c, false);
                return true;
            }
        }
        if (frames == 8) break;
        const bool torn = c->bulk != NULL && c->bulk->sent > 0;
        const ssize_t sent = torn || c->out_start == c->out_end ? send_bulk(c) : send_out(c);
        if (sent < 0 && errno != EAGAIN && errno != EINTR) return false;
        if (sent < 0) break;
    }
    watch(c, true);
    return true;
}

static void drop(struct connection *c)
{
    close(c->fd);
    while (c->bulk != NULL) {
        struct bulk *next = c->bulk->next;
        free(c->bulk);
        c->bulk = next;
    }
    while (c->streams != NULL) {
        struct stream *next = c->streams->next;
        free(c->streams);
        c->streams = next;
    }
    free(c->out);
    free(c);
}

static bool serve(struct connection *c, uint32_t events)
{
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        const ssize_t got = recv(c->fd, read_buffer, sizeof read_buffer, 0);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) return false;
        if (got > 0 && !cut(c, read_buffer, read_buffer + got)) return false;
    }
    return flush(c);
}

static void take(int listener)
{
    for (int taken = 0; taken < 64; taken++) {
        const int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR)) return;
        if (fd < 0) die("accept");
        struct connection *c = allocate(sizeof *c);
        c->fd = fd;
        c->bulk_end = &c->bulk;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
    }
}

static int listen_on(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        fprintf(stderr, "stand-in-daemon: %s: longer than a socket's path may be\n", path);
        exit(1);
    }
    strcpy(address.sun_path, path);
    unlink(path);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 4096) < 0) {
        die(path);
    }
    return fd;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "Usage: stand-in-daemon SOCKET\n");
        return 1;
    }
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    memset(filler, 'x', sizeof filler);
    const int listener = listen_on(argv[1]);
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event) < 0) die("epoll");
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS];
        const int count = epoll_wait(poller, events, EVENTS, -1);
        if (count < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (c == NULL) take(listener);
            else if (!serve(c, events[i].events)) drop(c);
        }
    }
}
