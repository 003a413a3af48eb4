/* What one core can do at best: a call's packet each way by libopus and libsrtp alone, in a tight loop.

   limit(LIBOPUS, LIBSRTP, SECONDS, microseconds[5])  ->  0, and the mean of each step of a packet

   For each of 64 calls in turn: 20 ms of 24 kHz sound encoded as the server does (CELT, 56 kbit/s, complexity 1),
   protected, sent and received over loopback UDP, unprotected, decoded to 16 kHz. The libraries are those inside the
   Python packages, opened at run time, so the prototypes stand here: their headers are in no package. It is itself
   a library, run inside Python by benchmarks/limit.py, because one of them needs Python's own symbols. */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { CALLS = 64, FRAME = 480, LOW_DELAY = 2051, SET_BITRATE = 4002, SET_COMPLEXITY = 4010, ANY_OUT = 3, ANY_IN = 2 };

/* The beginning of srtp_policy_t of libsrtp 2; what follows may stay zero. */
typedef struct { uint32_t cipher; int cipher_key; uint32_t auth; int auth_key, auth_tag; int services; } Crypto;
typedef struct { int type; unsigned value; Crypto rtp, rtcp; unsigned char *key; char rest[256]; } Policy;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static void *load(void *library, const char *name) {
    void *symbol = library ? dlsym(library, name) : NULL;
    if (!symbol) { fprintf(stderr, "%s is missing\n", name); exit(1); }
    return symbol;
}

int limit(const char *libopus, const char *libsrtp, double seconds, double *microseconds) {
    void *opus = dlopen(libopus, RTLD_NOW), *srtp = dlopen(libsrtp, RTLD_NOW);
    void *(*encoder)(int, int, int, int *) = load(opus, "opus_encoder_create");
    void *(*decoder)(int, int, int *) = load(opus, "opus_decoder_create");
    int (*ctl)(void *, int, ...) = load(opus, "opus_encoder_ctl");
    int (*encode)(void *, const int16_t *, int, unsigned char *, int) = load(opus, "opus_encode");
    int (*decode)(void *, const unsigned char *, int, int16_t *, int, int) = load(opus, "opus_decode");
    int (*init)(void) = load(srtp, "srtp_init");
    int (*create)(void **, const Policy *) = load(srtp, "srtp_create");
    void (*defaults)(Crypto *) = load(srtp, "srtp_crypto_policy_set_rtp_default");
    int (*protect)(void *, void *, int *) = load(srtp, "srtp_protect");
    int (*unprotect)(void *, void *, int *) = load(srtp, "srtp_unprotect");
    static unsigned char key[64] = "0123456789abcdef0123456789abcd";
    static void *encoders[CALLS], *decoders[CALLS], *out[CALLS], *in[CALLS];
    static int16_t tone[100 * FRAME], heard[5760];
    unsigned char packet[2048];
    int error = init();
    for (int i = 0; i < CALLS; i++) {
        Policy policy;
        memset(&policy, 0, sizeof policy);
        defaults(&policy.rtp);
        defaults(&policy.rtcp);
        policy.key = key;
        policy.type = ANY_OUT;
        error |= create(&out[i], &policy);
        policy.type = ANY_IN;
        error |= create(&in[i], &policy);
        encoders[i] = encoder(24000, 1, LOW_DELAY, &error);
        decoders[i] = decoder(16000, 1, &error);
        ctl(encoders[i], SET_BITRATE, 56000);
        ctl(encoders[i], SET_COMPLEXITY, 1);
    }
    if (error) return 1;
    for (int i = 0; i < 100 * FRAME; i++) tone[i] = (int16_t)(8230 * sin(i * 2 * M_PI * 440 / 24000));
    int udp = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (bind(udp, (void *)&address, size) || getsockname(udp, (void *)&address, &size)) return 1;

    double spent[5] = {0}, until = now() + seconds * 1e6;
    long packets = 0;
    for (unsigned tick = 0; now() < until; tick++) {
        for (int i = 0; i < CALLS; i++, packets++) {
            uint32_t header[3] = {htonl(0x80600000u | (tick & 0xffff)), htonl(tick * 960), htonl(1)};
            double t0 = now();
            int length = encode(encoders[i], tone + (tick + i) % 100 * FRAME, FRAME, packet + 12, 1500);
            double t1 = now();
            memcpy(packet, header, 12);
            length += 12;
            error |= protect(out[i], packet, &length);
            double t2 = now();
            sendto(udp, packet, length, 0, (void *)&address, size);
            length = recv(udp, packet, sizeof packet, 0);
            double t3 = now();
            error |= unprotect(in[i], packet, &length);
            double t4 = now();
            error |= decode(decoders[i], packet + 12, length - 12, heard, 5760, 0) != 320;
            double t5 = now();
            double steps[5] = {t1 - t0, t2 - t1, t3 - t2, t4 - t3, t5 - t4};
            for (int s = 0; s < 5; s++) spent[s] += steps[s];
        }
    }
    if (error) return 1;
    for (int s = 0; s < 5; s++) microseconds[s] = spent[s] / packets;
    return 0;
}
