/*
 * Clients of a libvirt daemon, as many and as busy as asked, in one thread.
 *
 *   load-generator MODE --socket PATH [OPTION VALUE]...
 *
 * Modes:
 *   calls     every client keeps --in-flight calls going for --seconds, after --warm-up seconds
 *   opens     every client connects, opens, has one call answered, closes and begins again, for --seconds
 *   download  every client opens a stream and reads --stream-bytes from it
 *   upload    every client opens a stream and writes --stream-bytes to it
 *   idle      opens all clients, prints "open", keeps them until standard input ends
 *   unread    the same, but every client makes --in-flight calls first, and reads no answer
 *   first     connects until there is somebody, opens, has one call answered
 *
 * Options: --clients N, --in-flight N, --seconds S, --warm-up S, --call-bytes N and --reply-bytes N (whole frames; the
 * peer must be stand-in-daemon then), --stream-bytes N, --uri URI, --watch PID,PID,… (processes whose CPU time is
 * measured), and instead of --socket, where it was built with GnuTLS: --tls-port PORT on the loopback interface,
 * --ca FILE, --cert FILE, --key FILE, --go-ahead 0|1 (whether the peer sends libvirt's byte after the handshake).
 *
 * Prints one JSON object. Every reply is checked: header, serial, status, length. Latencies are from before the call is
 * sent until after its reply was read, in "opens" from before the connect until the first call's answer.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
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
#include <time.h>
#include <unistd.h>
#ifdef WITH_TLS
#include <gnutls/gnutls.h>
#endif

enum {
    HEADER = 28,
    FRAME_MAX = 33554436,
    STREAM_DATA = 262120, /* data bytes in a stream frame, as libvirt sends them */
    NATIVE_FORMAT = 4,    /* bytes of the string that names the format of a sized call */
    EVENTS = 256,
    READ_BUFFER = 256 * 1024,
    OPENING_MAX = 32,     /* clients that open at the same time, unless the mode is "opens" */
    WATCHED_MAX = 64,
};

#define SECOND UINT64_C(1000000000)
#define PATIENCE (60 * SECOND) /* how long a peer may be silent before it is given up */

enum { PROGRAM_REMOTE = 0x20008086, PROGRAM_KEEPALIVE = 0x6b656570 };
enum { TYPE_CALL = 0, TYPE_REPLY = 1, TYPE_MESSAGE = 2, TYPE_STREAM = 3 };
enum { STATUS_OK = 0, STATUS_ERROR = 1, STATUS_CONTINUE = 2 };
enum {
    CONNECT_OPEN = 1,
    CONNECT_CLOSE = 2,
    CONNECT_SUPPORTS_FEATURE = 60,
    AUTH_LIST = 66,
    CONNECT_DOMAIN_XML_FROM_NATIVE = 135,
    CONNECT_GET_LIB_VERSION = 157,
    STORAGE_VOL_UPLOAD = 208,
    STORAGE_VOL_DOWNLOAD = 209,
};
enum { FEATURE_KEEPALIVE = 10 };

enum mode { CALLS, OPENS, DOWNLOAD, UPLOAD, IDLE, UNREAD, FIRST, MODES };
static const char *const mode_names[MODES] = {"calls", "opens", "download", "upload", "idle", "unread", "first"};

enum phase {
    CLOSED,
    HANDSHAKE,  /* TLS */
    GO_AHEAD,   /* waits for the server's byte after the handshake */
    ASKING,     /* in the calls that open a connection */
    OPEN,       /* waits for the others, or is idle */
    RUNNING,
    STREAMING,  /* in a call that opens a stream, and in a download */
    UPLOADING,
    DRAINED,    /* a stream is over, its end not yet confirmed */
    CLOSING,
};

struct call {
    uint32_t serial; /* 0: none in flight */
    uint64_t began;
};

struct client {
    int fd;
    enum phase phase;
    uint32_t procedure; /* of the call that is waited for, or of the stream */
    uint32_t serial;    /* of that call, or the last one */
    bool watches_out;
    uint64_t began;     /* when it began to connect */
    unsigned char head[HEADER];
    size_t head_length, skip;
    unsigned char *out;
    size_t out_start, out_end, out_capacity;
    struct call *calls;
    unsigned char frame_head[HEADER]; /* of the stream's data frames */
    size_t frame_sent, frame_size;
    uint64_t stream_left;
#ifdef WITH_TLS
    gnutls_session_t tls;
#endif
};

static struct {
    enum mode mode;
    const char *socket, *uri, *ca, *cert, *key;
    unsigned clients, in_flight, tls_port;
    bool go_ahead;
    double seconds, warm_up;
    size_t call_bytes, reply_bytes;
    uint64_t stream_bytes;
    pid_t watched[WATCHED_MAX];
    unsigned watched_count;
} options = {.uri = "qemu:///system", .clients = 1, .in_flight = 1, .go_ahead = true, .seconds = 3, .warm_up = 0.3};

static int poller;
static struct client *clients;
static unsigned opened, opening, ended;
static unsigned char read_buffer[READ_BUFFER];
static unsigned char data[STREAM_DATA];
static unsigned char *sized_payload; /* the arguments of a sized call */
static size_t sized_length;
static uint64_t start, window_start, window_end, last_progress, now;
static double cpu_start, cpu_seconds;
static bool measuring, over;
static uint64_t counted, total, errors;
static char first_error[256];

/* Latencies in nanoseconds, 64 buckets for every power of two: off by 0.8 % at most. */
enum { SUB = 64, SUB_BITS = 6 };
static uint64_t histogram[64 * SUB], slowest;

static void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "load-generator: ");
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static uint64_t clock_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

/* CPU time of the watched processes, all threads, user and system. */
static double watched_cpu(void)
{
    double sum = 0;
    for (unsigned i = 0; i < options.watched_count; i++) {
        clockid_t id;
        struct timespec time;
        if (clock_getcpuclockid(options.watched[i], &id) != 0 || clock_gettime(id, &time) != 0) continue;
        sum += time.tv_sec + time.tv_nsec / 1e9;
    }
    return sum;
}

static void begin_measuring(void)
{
    measuring = true;
    cpu_start = watched_cpu();
    window_start = clock_now();
}

static void end_measuring(void)
{
    if (!measuring) return;
    measuring = false;
    window_end = clock_now();
    cpu_seconds = watched_cpu() - cpu_start;
}

static unsigned bucket_of(uint64_t value)
{
    if (value < SUB) return value;
    const int shift = 63 - __builtin_clzll(value) - SUB_BITS;
    return (shift + 1) * SUB + (value >> shift) - SUB;
}

static double bucket_middle(unsigned bucket)
{
    if (bucket < SUB) return bucket;
    const int shift = bucket / SUB - 1;
    return ((double)(bucket % SUB + SUB) + 0.5) * (double)(UINT64_C(1) << shift);
}

static void record(uint64_t latency)
{
    total++;
    last_progress = now;
    if (!measuring) return;
    counted++;
    histogram[bucket_of(latency)]++;
    if (latency > slowest) slowest = latency;
}

/* In microseconds. */
static double percentile(double fraction)
{
    uint64_t rank = (uint64_t)(fraction * counted);
    if (rank >= counted) rank = counted - 1;
    for (unsigned bucket = 0; bucket < 64 * SUB; bucket++) {
        if (rank < histogram[bucket]) return bucket_middle(bucket) / 1000;
        rank -= histogram[bucket];
    }
    return 0;
}

static uint32_t get32(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static unsigned char *put32(unsigned char *at, uint32_t value)
{
    at[0] = value >> 24;
    at[1] = value >> 16;
    at[2] = value >> 8;
    at[3] = value;
    return at + 4;
}

static size_t padded(size_t length)
{
    return (length + 3) & ~(size_t)3;
}

/* Writes an XDR string into zeroed memory. */
static unsigned char *put_string(unsigned char *at, const char *text)
{
    const size_t length = strlen(text);
    memcpy(put32(at, length), text, length);
    return at + 4 + padded(length);
}

static void put_header(unsigned char *at, uint32_t program, uint32_t procedure, uint32_t type, uint32_t serial,
                       uint32_t status, size_t payload)
{
    const uint32_t words[] = {HEADER + payload, program, 1, procedure, type, serial, status};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) at = put32(at, words[i]);
}

static unsigned char *reserve(struct client *c, size_t size)
{
    if (c->out_start == c->out_end) c->out_start = c->out_end = 0;
    if (c->out_end + size > c->out_capacity) {
        c->out_capacity = 2 * (c->out_end + size);
        c->out = realloc(c->out, c->out_capacity);
        if (c->out == NULL) die("no memory");
    }
    c->out_end += size;
    return c->out + c->out_end - size;
}

static void add_frame(struct client *c, uint32_t program, uint32_t procedure, uint32_t type, uint32_t serial,
                      uint32_t status, const void *payload, size_t length)
{
    unsigned char *at = reserve(c, HEADER + length);
    put_header(at, program, procedure, type, serial, status, length);
    if (length > 0) memcpy(at + HEADER, payload, length);
}

/* Makes a call and waits for nothing else until its reply. */
static void ask(struct client *c, uint32_t procedure, const void *payload, size_t length)
{
    c->procedure = procedure;
    c->serial++;
    add_frame(c, PROGRAM_REMOTE, procedure, TYPE_CALL, c->serial, STATUS_OK, payload, length);
}

static void add_call(struct client *c, struct call *call)
{
    /* The serial tells the slot. */
    const unsigned slot = call - c->calls;
    if (call->serial == 0) call->serial = options.in_flight * 16 + slot;
    call->serial += options.in_flight;
    call->began = now;
    add_frame(c, PROGRAM_REMOTE, c->procedure, TYPE_CALL, call->serial, STATUS_OK, sized_payload, sized_length);
}

static void connect_client(struct client *c);

static void disconnect(struct client *c)
{
    if (c->phase == CLOSED) return;
    if (c->phase < OPEN) opening--;
    c->phase = CLOSED;
#ifdef WITH_TLS
    if (c->tls != NULL) gnutls_deinit(c->tls);
    c->tls = NULL;
#endif
    close(c->fd);
    c->fd = -1;
    c->out_start = c->out_end = c->head_length = c->skip = 0;
}

static void fault(struct client *c, const char *format, ...)
{
    if (errors++ == 0) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(first_error, sizeof first_error, format, arguments);
        va_end(arguments);
    }
    disconnect(c);
    ended++;
}

static void ask_stream(struct client *c)
{
    unsigned char payload[64] = {0};
    unsigned char *at = put_string(payload, "pool");
    at = put_string(at, "volume");
    at = put_string(at, "/pool/volume");
    at = put32(at + 8, options.stream_bytes >> 32); /* offset 0 */
    at = put32(at, options.stream_bytes);
    c->stream_left = options.stream_bytes;
    c->phase = STREAMING;
    ask(c, options.mode == DOWNLOAD ? STORAGE_VOL_DOWNLOAD : STORAGE_VOL_UPLOAD, payload, at + 4 - payload);
}

static bool flush(struct client *c);

static bool until_input_ends(void)
{
    return options.mode == IDLE || options.mode == UNREAD;
}

/* All clients are open. */
static void start_all(void)
{
    start = now = last_progress = clock_now();
    if (until_input_ends()) {
        puts("open");
        fflush(stdout);
    }
    if (options.mode == IDLE) return;
    if (options.mode == DOWNLOAD || options.mode == UPLOAD) begin_measuring();
    for (unsigned i = 0; i < options.clients; i++) {
        struct client *c = &clients[i];
        if (c->phase != OPEN) continue;
        if (options.mode == CALLS || options.mode == UNREAD) {
            c->phase = RUNNING;
            c->procedure = sized_payload == NULL ? CONNECT_GET_LIB_VERSION : CONNECT_DOMAIN_XML_FROM_NATIVE;
            for (unsigned slot = 0; slot < options.in_flight; slot++) add_call(c, &c->calls[slot]);
        } else {
            ask_stream(c);
        }
        flush(c);
        if (options.mode == UNREAD && epoll_ctl(poller, EPOLL_CTL_DEL, c->fd, NULL) < 0) die("epoll_ctl: %s", strerror(errno));
    }
}

static void finish(struct client *c)
{
    disconnect(c);
    if (++ended == options.clients) over = true;
}

static void has_opened(struct client *c)
{
    opened++;
    opening--;
    last_progress = now;
    c->phase = OPEN;
    if (options.mode == OPENS || options.mode == FIRST) {
        c->phase = RUNNING;
        ask(c, CONNECT_GET_LIB_VERSION, NULL, 0);
    }
}

static void begin_opening(struct client *c)
{
    c->phase = ASKING;
    ask(c, AUTH_LIST, NULL, 0);
}

/* The reply to a call of `ask()`. */
static void answered(struct client *c)
{
    unsigned char payload[512] = {0};
    switch (c->procedure) {
    case AUTH_LIST:
        put32(payload, FEATURE_KEEPALIVE);
        ask(c, CONNECT_SUPPORTS_FEATURE, payload, 4);
        break;
    case CONNECT_SUPPORTS_FEATURE: {
        unsigned char *at = put_string(put32(payload, 1), options.uri);
        ask(c, CONNECT_OPEN, payload, at + 4 - payload);
        break;
    }
    case CONNECT_OPEN:
        has_opened(c);
        break;
    case CONNECT_GET_LIB_VERSION:
        record(now - c->began);
        if (options.mode == FIRST) end_measuring();
        c->phase = CLOSING;
        ask(c, CONNECT_CLOSE, NULL, 0);
        break;
    case CONNECT_CLOSE:
        if (over || options.mode == FIRST) {
            finish(c);
        } else {
            disconnect(c);
            connect_client(c);
        }
        break;
    case STORAGE_VOL_UPLOAD:
        c->phase = UPLOADING;
        put_header(c->frame_head, PROGRAM_REMOTE, c->procedure, TYPE_STREAM, c->serial, STATUS_CONTINUE, STREAM_DATA);
        break;
    default:
        break;
    }
}

static void end_stream(struct client *c)
{
    c->phase = DRAINED;
    add_frame(c, PROGRAM_REMOTE, c->procedure, TYPE_STREAM, c->serial, STATUS_OK, NULL, 0);
}

static void stream_frame(struct client *c, uint32_t status, size_t length)
{
    if (status == STATUS_CONTINUE && c->phase == STREAMING && options.mode == DOWNLOAD) {
        if (length > c->stream_left) {
            fault(c, "the stream has more than %llu bytes", (unsigned long long)options.stream_bytes);
        } else if (length > 0) {
            c->stream_left -= length;
            last_progress = now;
        } else if (c->stream_left > 0) {
            fault(c, "the stream ended %llu bytes early", (unsigned long long)c->stream_left);
        } else {
            end_stream(c);
        }
    } else if (status == STATUS_OK && c->phase == DRAINED) {
        record(now - start);
        finish(c);
    } else {
        fault(c, "a stream frame of status %u at the wrong time", status);
    }
}

static void reply(struct client *c, uint32_t serial, uint32_t status, size_t length)
{
    if (status != STATUS_OK) {
        fault(c, "procedure %u was answered with an error", c->procedure);
        return;
    }
    if (options.mode != CALLS || c->phase != RUNNING) {
        if (serial != c->serial) fault(c, "a reply to call %u, waiting for %u", serial, c->serial);
        else answered(c);
        return;
    }
    struct call *call = &c->calls[serial % options.in_flight];
    const size_t wanted = sized_payload == NULL ? HEADER + 8 : options.reply_bytes;
    if (call->serial != serial || call->began == 0) {
        fault(c, "a reply to call %u, which is not in flight", serial);
    } else if (length != wanted) {
        fault(c, "a reply of %zu bytes instead of %zu", length, wanted);
    } else {
        record(now - call->began);
        call->began = 0;
        if (!over) add_call(c, call);
    }
}

static void handle(struct client *c, const unsigned char *frame)
{
    const size_t length = get32(frame);
    const uint32_t program = get32(frame + 4), procedure = get32(frame + 12), type = get32(frame + 16);
    const uint32_t serial = get32(frame + 20), status = get32(frame + 24);
    if (program == PROGRAM_KEEPALIVE && type == TYPE_MESSAGE) {
        if (procedure == 1) add_frame(c, program, 2, TYPE_MESSAGE, 0, STATUS_OK, NULL, 0);
    } else if (program != PROGRAM_REMOTE || procedure != c->procedure) {
        fault(c, "a frame of program %x, procedure %u", program, procedure);
    } else if (type == TYPE_REPLY) {
        reply(c, serial, status, length);
    } else if (type == TYPE_STREAM && serial == c->serial) {
        stream_frame(c, status, length - HEADER);
    } else {
        fault(c, "a frame of type %u, serial %u", type, serial);
    }
}

/* Cuts bytes into frames, of which only the headers are looked at; each counts when its last byte is there. */
static void cut(struct client *c, const unsigned char *at, const unsigned char *end)
{
    if (c->phase == GO_AHEAD) {
        if (*at++ != 1) {
            fault(c, "the byte after the handshake is not 1");
            return;
        }
        begin_opening(c);
    }
    while (at < end && c->phase != CLOSED) {
        const size_t there = end - at;
        if (c->skip > 0) {
            const size_t part = there < c->skip ? there : c->skip;
            c->skip -= part;
            at += part;
        } else if (c->head_length == 0 && there >= HEADER && get32(at) >= HEADER && get32(at) <= there) {
            const size_t length = get32(at);
            handle(c, at);
            at += length;
            continue;
        } else {
            const size_t missing = HEADER - c->head_length;
            const size_t part = there < missing ? there : missing;
            memcpy(c->head + c->head_length, at, part);
            c->head_length += part;
            at += part;
            if (c->head_length < HEADER) continue;
            const size_t length = get32(c->head);
            if (length < HEADER || length > FRAME_MAX) {
                fault(c, "a frame of %zu bytes", length);
                return;
            }
            c->skip = length - HEADER;
        }
        if (c->skip == 0 && c->head_length == HEADER) {
            c->head_length = 0;
            handle(c, c->head);
        }
    }
}

static void watch(struct client *c, bool out)
{
    if (c->watches_out == out) return;
    c->watches_out = out;
    struct epoll_event event = {.events = EPOLLIN | (out ? EPOLLOUT : 0), .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event) < 0) die("epoll_ctl: %s", strerror(errno));
}

#ifdef WITH_TLS
static gnutls_certificate_credentials_t credentials;

static void load_credentials(void)
{
    gnutls_global_init();
    gnutls_certificate_allocate_credentials(&credentials);
    if (gnutls_certificate_set_x509_trust_file(credentials, options.ca, GNUTLS_X509_FMT_PEM) < 0 ||
        gnutls_certificate_set_x509_key_file(credentials, options.cert, options.key, GNUTLS_X509_FMT_PEM) < 0) {
        die("cannot read --ca, --cert or --key");
    }
}

static void begin_tls(struct client *c)
{
    gnutls_init(&c->tls, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);
    gnutls_set_default_priority(c->tls);
    gnutls_credentials_set(c->tls, GNUTLS_CRD_CERTIFICATE, credentials);
    gnutls_transport_set_int(c->tls, c->fd);
}

/* False while the handshake is not over. */
static bool shake_hands(struct client *c)
{
    const int status = gnutls_handshake(c->tls);
    if (status == GNUTLS_E_SUCCESS) {
        if (options.go_ahead) c->phase = GO_AHEAD;
        else begin_opening(c);
        return true;
    }
    if (gnutls_error_is_fatal(status)) fault(c, "TLS handshake: %s", gnutls_strerror(status));
    else watch(c, gnutls_record_get_direction(c->tls) == 1);
    return false;
}
#endif

/* As recv() on a non-blocking socket. */
static ssize_t receive(struct client *c)
{
#ifdef WITH_TLS
    if (c->tls != NULL) {
        const ssize_t got = gnutls_record_recv(c->tls, read_buffer, sizeof read_buffer);
        if (got >= 0) return got;
        errno = gnutls_error_is_fatal(got) ? EIO : EAGAIN;
        return -1;
    }
#endif
    return recv(c->fd, read_buffer, sizeof read_buffer, 0);
}

static ssize_t transmit(struct client *c, const void *bytes, size_t length)
{
#ifdef WITH_TLS
    if (c->tls != NULL) {
        const ssize_t sent = gnutls_record_send(c->tls, bytes, length);
        if (sent >= 0) return sent;
        errno = gnutls_error_is_fatal(sent) ? EIO : EAGAIN;
        return -1;
    }
#endif
    return send(c->fd, bytes, length, MSG_NOSIGNAL);
}

/* Sends part of an upload's current data frame. */
static ssize_t send_data(struct client *c)
{
    if (c->frame_size == 0) {
        const size_t size = c->stream_left < STREAM_DATA ? c->stream_left : STREAM_DATA;
        put32(c->frame_head, HEADER + size);
        c->frame_size = HEADER + size;
    }
    struct iovec parts[2];
    int count = 0;
    if (c->frame_sent < HEADER) {
        parts[count++] = (struct iovec){c->frame_head + c->frame_sent, HEADER - c->frame_sent};
        parts[count++] = (struct iovec){data, c->frame_size - HEADER};
    } else {
        parts[count++] = (struct iovec){data + c->frame_sent - HEADER, c->frame_size - c->frame_sent};
    }
    const struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    const ssize_t sent = sendmsg(c->fd, &message, MSG_NOSIGNAL);
    if (sent < 0) return sent;
    last_progress = now;
    c->frame_sent += sent;
    if (c->frame_sent == c->frame_size) {
        c->stream_left -= c->frame_size - HEADER;
        c->frame_sent = c->frame_size = 0;
        if (c->stream_left == 0) end_stream(c);
    }
    return sent;
}

/* Sends what there is, a few data frames at a time; false when that failed. */
static bool flush(struct client *c)
{
    if (c->phase <= HANDSHAKE) return true;
    for (int frames = 0; frames < 8; frames++) {
        const bool uploads = c->phase == UPLOADING;
        const bool queued = c->out_start < c->out_end;
        if (!queued && !uploads) {
            watch(c, false);
            return true;
        }
        const bool torn = c->frame_sent > 0;
        const ssize_t sent = queued && !torn ? transmit(c, c->out + c->out_start, c->out_end - c->out_start)
                                             : send_data(c);
        if (sent < 0 && errno == EAGAIN) break;
        if (sent < 0) {
            fault(c, "cannot send: %s", strerror(errno));
            return false;
        }
        if (queued && !torn) c->out_start += sent;
    }
    watch(c, true);
    return true;
}

static void serve(struct client *c, uint32_t events)
{
#ifdef WITH_TLS
    if (c->phase == HANDSHAKE && !shake_hands(c)) return;
    bool again = c->tls != NULL;
#else
    bool again = false;
#endif
    do {
        if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR))) break;
        const ssize_t got = receive(c);
        if (got < 0 && errno == EAGAIN) break;
        now = clock_now();
        if (got <= 0) {
            if (c->phase == CLOSING) answered(c);
            else fault(c, "the peer closed the connection%s%s", got < 0 ? ": " : "", got < 0 ? strerror(errno) : "");
            return;
        }
        cut(c, read_buffer, read_buffer + got);
    } while (again && c->phase > HANDSHAKE);
    flush(c);
}

static int connect_once(void)
{
    if (options.tls_port != 0) {
        const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const struct sockaddr_in address = {.sin_family = AF_INET,
                                            .sin_port = htons(options.tls_port),
                                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        const int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) == 0) return fd;
        if (fd >= 0) close(fd);
        return -1;
    }
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, options.socket);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) == 0) return fd;
    if (fd >= 0) close(fd);
    return -1;
}

static void connect_client(struct client *c)
{
    c->began = now = clock_now();
    while ((c->fd = connect_once()) < 0) {
        if (options.mode != FIRST || clock_now() - c->began > PATIENCE) die("connect: %s", strerror(errno));
        usleep(500);
    }
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    c->serial = 0;
    c->watches_out = false;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event) < 0) die("epoll_ctl: %s", strerror(errno));
    opening++;
#ifdef WITH_TLS
    if (options.tls_port != 0) {
        c->phase = HANDSHAKE;
        begin_tls(c);
        shake_hands(c);
        return;
    }
#endif
    begin_opening(c);
    flush(c);
}

/* Makes the arguments of calls that ask stand-in-daemon for a reply of a certain size. */
static void prepare_sized_calls(void)
{
    if (options.call_bytes == 0 && options.reply_bytes == 0) return;
    const size_t fixed = HEADER + 4 + NATIVE_FORMAT + 4 + 4;
    const size_t text = options.call_bytes > fixed + 16 ? padded(options.call_bytes - fixed) : 16;
    if (options.reply_bytes < HEADER + 4) options.reply_bytes = HEADER + 4;
    options.reply_bytes = padded(options.reply_bytes);
    sized_length = fixed - HEADER + text;
    sized_payload = calloc(1, sized_length);
    if (sized_payload == NULL) die("no memory");
    unsigned char *at = put32(put_string(sized_payload, "size"), text);
    memset(at, ' ', text);
    char digits[16];
    memcpy(at, digits, snprintf(digits, sizeof digits, "%zu", options.reply_bytes));
}

static void read_options(int argc, char **argv)
{
    options.mode = MODES;
    for (int mode = 0; argc > 1 && mode < MODES; mode++) {
        if (strcmp(argv[1], mode_names[mode]) == 0) options.mode = mode;
    }
    if (options.mode == MODES) die("the first argument is a mode: calls, opens, download, upload, idle, unread or first");
    for (int i = 2; i < argc; i += 2) {
        const char *name = argv[i];
        char *value = argv[i + 1];
        if (value == NULL) die("%s: a value is missing", name);
        if (strcmp(name, "--socket") == 0) options.socket = value;
        else if (strcmp(name, "--uri") == 0) options.uri = value;
        else if (strcmp(name, "--clients") == 0) options.clients = strtoul(value, NULL, 10);
        else if (strcmp(name, "--in-flight") == 0) options.in_flight = strtoul(value, NULL, 10);
        else if (strcmp(name, "--seconds") == 0) options.seconds = strtod(value, NULL);
        else if (strcmp(name, "--warm-up") == 0) options.warm_up = strtod(value, NULL);
        else if (strcmp(name, "--call-bytes") == 0) options.call_bytes = strtoul(value, NULL, 10);
        else if (strcmp(name, "--reply-bytes") == 0) options.reply_bytes = strtoul(value, NULL, 10);
        else if (strcmp(name, "--stream-bytes") == 0) options.stream_bytes = strtoull(value, NULL, 10);
        else if (strcmp(name, "--tls-port") == 0) options.tls_port = strtoul(value, NULL, 10);
        else if (strcmp(name, "--ca") == 0) options.ca = value;
        else if (strcmp(name, "--cert") == 0) options.cert = value;
        else if (strcmp(name, "--key") == 0) options.key = value;
        else if (strcmp(name, "--go-ahead") == 0) options.go_ahead = strcmp(value, "0") != 0;
        else if (strcmp(name, "--watch") == 0) {
            for (char *pid = strtok(value, ","); pid != NULL; pid = strtok(NULL, ",")) {
                if (options.watched_count == WATCHED_MAX) die("--watch: at most %d processes", WATCHED_MAX);
                options.watched[options.watched_count++] = strtol(pid, NULL, 10);
            }
        } else die("%s: no such option", name);
    }
    if (options.clients == 0 || options.in_flight == 0) die("--clients and --in-flight are at least 1");
    if (strlen(options.uri) > 400) die("--uri: too long");
    if (options.tls_port == 0 && (options.socket == NULL || strlen(options.socket) > 107)) {
        die("--socket: missing, or longer than a socket's path may be");
    }
    if (options.tls_port != 0) {
#ifdef WITH_TLS
        if (options.ca == NULL || options.cert == NULL || options.key == NULL) die("--tls-port needs --ca, --cert, --key");
        if (options.mode == UPLOAD) die("upload: not over TLS");
        load_credentials();
#else
        die("--tls-port: built without GnuTLS");
#endif
    }
}

/* What the clock ends or begins; false when all is done. */
static bool keep_time(void)
{
    now = clock_now();
    if (start == 0 && options.mode != FIRST && opened + ended == options.clients) start_all();
    if (ended == options.clients) return false;
    if (until_input_ends()) return true;
    if (options.mode == CALLS || options.mode == OPENS) {
        const uint64_t begin = start + (uint64_t)(options.warm_up * SECOND);
        const uint64_t end = begin + (uint64_t)(options.seconds * SECOND);
        if (start != 0 && now >= begin && window_start == 0) begin_measuring();
        if (start != 0 && now >= end && !over) {
            end_measuring();
            over = true;
        }
        if (over) {
            bool outstanding = false;
            for (unsigned i = 0; i < options.clients; i++) {
                const struct client *c = &clients[i];
                if (c->phase == CLOSED) continue;
                if (options.mode == OPENS) outstanding = true;
                for (unsigned slot = 0; slot < options.in_flight; slot++) outstanding |= c->calls[slot].began != 0;
            }
            if (!outstanding) return false;
        }
    }
    if (now - last_progress > PATIENCE) {
        errors++;
        if (first_error[0] == '\0') strcpy(first_error, "the peer is silent");
        return false;
    }
    return true;
}

static void print_text(const char *text)
{
    putchar('"');
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\') putchar('\\');
        if ((unsigned char)*text >= ' ') putchar(*text);
    }
    putchar('"');
}

static void print_result(void)
{
    const double seconds = window_end > window_start ? (window_end - window_start) / 1e9 : 0;
    printf("{\"mode\":\"%s\",\"clients\":%u,\"inFlight\":%u,\"seconds\":%.6f,\"count\":%llu,\"total\":%llu,"
           "\"perSecond\":%.1f,\"errors\":%llu,\"cpuSeconds\":%.6f,\"firstError\":",
           mode_names[options.mode], options.clients, options.in_flight, seconds, (unsigned long long)counted,
           (unsigned long long)total, seconds > 0 ? counted / seconds : 0, (unsigned long long)errors, cpu_seconds);
    if (errors > 0) print_text(first_error);
    else printf("null");
    printf(",\"firstAnswerAt\":%llu,\"latency\":", (unsigned long long)(options.mode == FIRST ? window_end / 1000 : 0));
    if (counted > 0) {
        printf("{\"p50\":%.2f,\"p99\":%.2f,\"p999\":%.2f,\"max\":%.2f}", percentile(0.5), percentile(0.99),
               percentile(0.999), slowest / 1000.0);
    } else {
        printf("null");
    }
    printf("}\n");
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    prepare_sized_calls();
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    poller = epoll_create1(EPOLL_CLOEXEC);
    clients = calloc(options.clients, sizeof *clients);
    if (poller < 0 || clients == NULL) die("cannot begin: %s", strerror(errno));
    for (unsigned i = 0; i < options.clients; i++) {
        clients[i].fd = -1;
        clients[i].calls = calloc(options.in_flight, sizeof(struct call));
        if (clients[i].calls == NULL) die("no memory");
    }
    struct epoll_event input = {.events = EPOLLIN | EPOLLHUP, .data.ptr = NULL};
    if (until_input_ends() && epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &input) < 0) {
        die("standard input must be a pipe or a terminal: %s", strerror(errno));
    }
    last_progress = clock_now();
    if (options.mode == OPENS) start = last_progress;
    if (options.mode == FIRST) begin_measuring();
    unsigned begun = 0;
    while (keep_time()) {
        const unsigned most = options.mode == OPENS ? options.clients : OPENING_MAX;
        while (begun < options.clients && opening < most) connect_client(&clients[begun++]);
        struct epoll_event events[EVENTS];
        const int count = epoll_wait(poller, events, EVENTS, 100);
        if (count < 0 && errno != EINTR) die("epoll_wait: %s", strerror(errno));
        now = clock_now();
        for (int i = 0; i < count; i++) {
            struct client *c = events[i].data.ptr;
            char rest[64];
            if (c != NULL && c->phase != CLOSED) serve(c, events[i].events);
            else if (c == NULL && read(STDIN_FILENO, rest, sizeof rest) <= 0) goto done;
        }
    }
done:
    end_measuring();
    print_result();
    return 0;
}
