/* A libnvidia-ml whose GPUs are what a small text file says, so that tests can steer a driver while
   a program uses it.

   The file is named by GANTRY_FAKE_NVML or lies beside this library, with ".state" behind its
   name; it is read again whenever it has changed. Each line is a word and its values, where G is a
   GPU's index:

     gpus N                      how many there are (two where no file says)
     prefix TEXT                 of UUIDs, so that the GPUs of two nodes differ
     name G TEXT, memory G GIB   what it is
     busy, memory_busy, encoder, decoder            G PERMILLE
     memory_used G MIB, temperature G CELSIUS, power, power_limit G MW, clock, memory_clock G MHZ
     throttle G WORD...          idle power_cap hw_slowdown sw_thermal hw_thermal power_brake, or bits
     ecc_corrected, ecc_uncorrected, rows, nvlink_errors, pcie_replays G COUNT
     pcie_sent, pcie_received    G KIB      since the driver was loaded
     remap_pending G, remap_failed G
     process G PID MIB           MIB may be "-": the driver does not say
     nvlink G H                  a link between two; H may be "fabric"
     mig G PLACE PROFILE GIB     G is divided, with an instance there
     unsupported G WORD          a reading above that it does not have
     lost G                      it has fallen off the bus, and is listed still
     gone G                      it is not even listed
     xid G CODE                  raised once: the lines of this word are a queue, of which those
                                 that were there when the library was loaded are past
     driver off                  no driver is loaded
     hang on                     no call returns before this line is gone */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <libgen.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { OK, UNINITIALIZED, INVALID, NOT_SUPPORTED, NOT_FOUND = 6, SMALL = 7, NO_DRIVER = 9,
       TIMEOUT = 10, LOST = 15 };
enum { GPUS = 16, PLACES = 7, PROCESSES = 64, XIDS = 1024, LINKS = 18 };
enum { INSTANCES = 1000, HANG_LOOK_US = 5000, LOOK_MS = 5 };

/* Readings, by the words of the file. */
enum reading { BUSY, MEMORY_BUSY, ENCODER, DECODER, MEMORY_USED, TEMPERATURE, POWER, POWER_LIMIT,
               CLOCK, MEMORY_CLOCK, THROTTLE, ECC_CORRECTED, ECC_UNCORRECTED, ROWS, NVLINK_ERRORS,
               PCIE_REPLAYS, PCIE_SENT, PCIE_RECEIVED, REMAP_PENDING, REMAP_FAILED, PROCESS,
               READINGS };
static const char *const words[READINGS] = {
    "busy", "memory_busy", "encoder", "decoder", "memory_used", "temperature", "power",
    "power_limit", "clock", "memory_clock", "throttle", "ecc_corrected", "ecc_uncorrected", "rows",
    "nvlink_errors", "pcie_replays", "pcie_sent", "pcie_received", "remap_pending", "remap_failed",
    "process" };
static const struct { const char *word; unsigned bit; } throttles[] = {
    {"idle", 1}, {"power_cap", 4}, {"hw_slowdown", 8}, {"sw_thermal", 32}, {"hw_thermal", 64},
    {"power_brake", 128} };

struct instance { int there; char profile[32]; unsigned gib; };
struct gpu {
    char name[64];
    unsigned gib, processes, links, lost, gone, divided;
    unsigned long long values[READINGS];
    unsigned char missing[READINGS];
    struct { unsigned pid; unsigned long long bytes; } process[PROCESSES];
    int link[LINKS];
    struct instance instances[PLACES];
};
static struct { unsigned gpus, hang, off, xids; char prefix[64]; struct gpu gpu[GPUS];
                struct { unsigned gpu; unsigned long long code; } xid[XIDS]; } now;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct stat seen;
static int read_once;
static struct timespec looked;
static unsigned xids_taken;

static const char *file(void) {
    static char path[4096];
    const char *named = getenv("GANTRY_FAKE_NVML");
    Dl_info own;
    if (named) return named;
    if (!path[0] && dladdr((void *)(size_t)file, &own))
        snprintf(path, sizeof path, "%s.state", own.dli_fname);
    return path;
}

static void reset(void) {
    memset(&now, 0, sizeof now);
    now.gpus = 2;
    for (int index = 0; index < GPUS; index++) {
        struct gpu *gpu = &now.gpu[index];
        strcpy(gpu->name, "Test 9000");
        gpu->gib = 80;
        gpu->values[TEMPERATURE] = 40;
        gpu->values[POWER] = 80000;
        gpu->values[POWER_LIMIT] = 700000;
        gpu->values[CLOCK] = 1980;
        gpu->values[MEMORY_CLOCK] = 2619;
    }
}

static void take_reading(struct gpu *gpu, int reading, char *rest) {
    char first[32] = "", second[32] = "";
    sscanf(rest, "%31s %31s", first, second);
    if (reading == PROCESS) {
        if (gpu->processes == PROCESSES) return;
        gpu->process[gpu->processes].pid = (unsigned)strtoul(first, NULL, 10);
        gpu->process[gpu->processes++].bytes =
            second[0] == '-' ? ~0ull : strtoull(second, NULL, 10) << 20;
    } else if (reading == REMAP_PENDING || reading == REMAP_FAILED) {
        gpu->values[reading] = 1;
    } else if (reading == THROTTLE) {
        char *state, *word = strtok_r(rest, " \t", &state);
        for (; word; word = strtok_r(NULL, " \t", &state)) {
            unsigned long long bits = strtoull(word, NULL, 0);
            for (size_t at = 0; at < sizeof throttles / sizeof *throttles; at++)
                if (!strcmp(word, throttles[at].word)) bits = throttles[at].bit;
            gpu->values[THROTTLE] |= bits;
        }
    } else {
        gpu->values[reading] = strtoull(first, NULL, 10);
    }
}

static int reading_of(const char *word) {
    for (int reading = 0; reading < READINGS; reading++)
        if (!strcmp(word, words[reading])) return reading;
    return -1;
}

static void take_line(char *line) {
    char word[32] = "", text[64] = "";
    int index = 0, other = 0, after = 0;
    unsigned gib = 0;
    if (sscanf(line, "%31s %n", word, &after) < 1) return;
    char *rest = line + after;
    if (!strcmp(word, "gpus")) { now.gpus = (unsigned)atoi(rest) > GPUS ? GPUS : (unsigned)atoi(rest); return; }
    if (!strcmp(word, "prefix")) { sscanf(rest, "%40s", now.prefix); strcat(now.prefix, "-"); return; }
    if (!strcmp(word, "hang")) { now.hang = !strcmp(rest, "on"); return; }
    if (!strcmp(word, "driver")) { now.off = !strcmp(rest, "off"); return; }
    if (sscanf(rest, "%d %n", &index, &after) < 1 || index < 0 || index >= GPUS) return;
    rest += after;
    struct gpu *gpu = &now.gpu[index];
    if (!strcmp(word, "name")) snprintf(gpu->name, sizeof gpu->name, "%s", rest);
    if (!strcmp(word, "memory")) gpu->gib = (unsigned)atoi(rest);
    if (!strcmp(word, "lost")) gpu->lost = 1;
    if (!strcmp(word, "gone")) gpu->gone = 1;
    if (!strcmp(word, "nvlink") && gpu->links < LINKS) {
        other = rest[0] == 'f' ? -1 : atoi(rest);
        if (other < GPUS) gpu->link[gpu->links++] = other;
    }
    if (!strcmp(word, "mig") && sscanf(rest, "%d %31s %u", &other, text, &gib) == 3
        && other >= 0 && other < PLACES) {
        gpu->divided = gpu->instances[other].there = 1;
        snprintf(gpu->instances[other].profile, sizeof gpu->instances[other].profile, "%.31s", text);
        gpu->instances[other].gib = gib;
    }
    if (!strcmp(word, "xid") && now.xids < XIDS) {
        now.xid[now.xids].gpu = (unsigned)index;
        now.xid[now.xids++].code = strtoull(rest, NULL, 10);
    }
    int reading = reading_of(word);
    if (reading >= 0) take_reading(gpu, reading, rest);
    if (!strcmp(word, "unsupported") && (reading = reading_of(rest)) >= 0) gpu->missing[reading] = 1;
}

/* Reads the file where it has changed. It is not looked at with each call: a reading of a GPU is made of
   some thirty, and what those cost is no cost of the program. */
static void look(void) {
    struct timespec at;
    struct stat is;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &at);
    long since_ms = (at.tv_sec - looked.tv_sec) * 1000 + (at.tv_nsec - looked.tv_nsec) / 1000000;
    if (read_once && since_ms < LOOK_MS) return;
    looked = at;
    int there = !stat(file(), &is);
    if (!there) memset(&is, 0, sizeof is);
    if (read_once && is.st_ino == seen.st_ino && is.st_size == seen.st_size
        && is.st_mtim.tv_sec == seen.st_mtim.tv_sec && is.st_mtim.tv_nsec == seen.st_mtim.tv_nsec)
        return;
    int first = !read_once;
    seen = is;
    read_once = 1;
    reset();
    FILE *input = there ? fopen(file(), "r") : NULL;
    char line[512];
    while (input && fgets(line, sizeof line, input)) {
        line[strcspn(line, "\n")] = 0;
        take_line(line);
    }
    if (input) fclose(input);
    if (first) xids_taken = now.xids;
}

/* Begins a call: gives back with the lock held, once the driver does not hang. */
static void enter(void) {
    for (;;) {
        pthread_mutex_lock(&lock);
        look();
        if (!now.hang) return;
        pthread_mutex_unlock(&lock);
        usleep(HANG_LOOK_US);
    }
}
static int leave(int code) { pthread_mutex_unlock(&lock); return code; }

static int index_of(const void *device) {
    long number = (long)device;
    return (int)(number >= INSTANCES ? (number - INSTANCES) / PLACES : number - 1);
}
static int place_of(const void *device) {
    long number = (long)device;
    return number >= INSTANCES ? (int)((number - INSTANCES) % PLACES) : -1;
}
static struct gpu *gpu_of(const void *device) { return &now.gpu[index_of(device)]; }
static int state_of(const void *device) {
    if (now.off) return NO_DRIVER;
    const struct gpu *gpu = gpu_of(device);
    int place = place_of(device);
    if (gpu->lost || gpu->gone || (unsigned)index_of(device) >= now.gpus) return LOST;
    return place >= 0 && !gpu->instances[place].there ? INVALID : OK;
}

/* Reads one value; those of the first few are not known of an instance. */
static int value(const void *device, enum reading reading, unsigned long long *is) {
    enter();
    int code = state_of(device);
    if (!code && gpu_of(device)->missing[reading]) code = NOT_SUPPORTED;
    if (!code && place_of(device) >= 0 && reading <= DECODER) code = NOT_SUPPORTED;
    if (!code) *is = gpu_of(device)->values[reading];
    return leave(code);
}
static int narrow(const void *device, enum reading reading, unsigned per, unsigned *is) {
    unsigned long long wide = 0;
    int code = value(device, reading, &wide);
    if (!code) *is = (unsigned)(wide / per);
    return code;
}

int nvmlInit_v2(void) { enter(); return leave(now.off ? NO_DRIVER : OK); }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { (void)code; return "as the test wants it"; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    enter();
    *count = 0;
    for (unsigned index = 0; index < now.gpus; index++) *count += !now.gpu[index].gone;
    return leave(now.off ? NO_DRIVER : OK);
}
int nvmlDeviceGetHandleByIndex_v2(unsigned wanted, void **device) {
    enter();
    int code = now.off ? NO_DRIVER : INVALID;
    for (unsigned index = 0; !now.off && index < now.gpus; index++) {
        if (now.gpu[index].gone || wanted--) continue;
        *device = (void *)(long)(index + 1);
        code = state_of(*device);
        break;
    }
    return leave(code);
}
int nvmlDeviceGetUUID(const void *device, char *text, unsigned length) {
    enter();
    int letter = 'a' + index_of(device), place = place_of(device), code = state_of(device);
    if (place < 0) snprintf(text, length, "GPU-%s%c", now.prefix, letter);
    else snprintf(text, length, "MIG-%s%c-%d", now.prefix, letter, place);
    return leave(code);
}
int nvmlDeviceGetHandleByUUID(const char *wanted, void **device) {
    enter();
    int code = now.off ? NO_DRIVER : NOT_FOUND;
    char own[80];
    for (unsigned index = 0; !now.off && index < now.gpus; index++) {
        snprintf(own, sizeof own, "GPU-%s%c", now.prefix, 'a' + (int)index);
        if (strcmp(own, wanted)) continue;
        *device = (void *)(long)(index + 1);
        code = state_of(*device);
        break;
    }
    return leave(code);
}
int nvmlDeviceGetName(const void *device, char *text, unsigned length) {
    enter();
    const struct gpu *gpu = gpu_of(device);
    int place = place_of(device), code = state_of(device);
    if (place < 0) snprintf(text, length, "%s", gpu->name);
    else snprintf(text, length, "%s MIG %s", gpu->name, gpu->instances[place].profile);
    return leave(code);
}

struct memory { unsigned version; unsigned long long total, reserved, free, used; };
int nvmlDeviceGetMemoryInfo_v2(const void *device, struct memory *info) {
    enter();
    const struct gpu *gpu = gpu_of(device);
    int place = place_of(device), code = state_of(device);
    info->total = (unsigned long long)(place < 0 ? gpu->gib : gpu->instances[place].gib) << 30;
    info->used = gpu->values[MEMORY_USED] << 20;
    info->reserved = 0;
    info->free = info->total - info->used;
    return leave(code);
}
struct rates { unsigned gpu, memory; };
int nvmlDeviceGetUtilizationRates(const void *device, struct rates *rates) {
    int code = narrow(device, BUSY, 10, &rates->gpu);
    return code ? code : narrow(device, MEMORY_BUSY, 10, &rates->memory);
}
int nvmlDeviceGetTemperature(const void *device, int sensor, unsigned *is) {
    (void)sensor;
    return narrow(device, TEMPERATURE, 1, is);
}
int nvmlDeviceGetPowerUsage(const void *device, unsigned *is) { return narrow(device, POWER, 1, is); }
int nvmlDeviceGetEnforcedPowerLimit(const void *device, unsigned *is) {
    return narrow(device, POWER_LIMIT, 1, is);
}
int nvmlDeviceGetClockInfo(const void *device, int kind, unsigned *is) {
    return narrow(device, kind == 2 ? MEMORY_CLOCK : CLOCK, 1, is);
}
int nvmlDeviceGetCurrentClocksThrottleReasons(const void *device, unsigned long long *is) {
    return value(device, THROTTLE, is);
}
int nvmlDeviceGetTotalEccErrors(const void *device, int kind, int counter, unsigned long long *is) {
    (void)counter;
    return value(device, kind ? ECC_UNCORRECTED : ECC_CORRECTED, is);
}
int nvmlDeviceGetPcieReplayCounter(const void *device, unsigned *is) {
    return narrow(device, PCIE_REPLAYS, 1, is);
}
int nvmlDeviceGetEncoderUtilization(const void *device, unsigned *is, unsigned *period_us) {
    *period_us = 167000;
    return narrow(device, ENCODER, 10, is);
}
int nvmlDeviceGetDecoderUtilization(const void *device, unsigned *is, unsigned *period_us) {
    *period_us = 167000;
    return narrow(device, DECODER, 10, is);
}

struct field { unsigned id, scope; long long at, latency_us; int type, code;
               unsigned long long value; };
static int field(const void *device, struct field *one) {
    static const struct { unsigned id; enum reading reading; unsigned long long per; } known[] = {
        {38, NVLINK_ERRORS, 1}, {94, PCIE_REPLAYS, 1}, {142, ROWS, 1},
        {144, REMAP_PENDING, 1}, {145, REMAP_FAILED, 1},
        {197, PCIE_SENT, 1024}, {198, PCIE_RECEIVED, 1024} };
    one->type = 3; /* an unsigned long long */
    one->code = NOT_SUPPORTED;
    for (size_t at = 0; at < sizeof known / sizeof *known; at++)
        if (known[at].id == one->id) {
            one->code = value(device, known[at].reading, &one->value);
            one->value *= known[at].per;
        }
    if (one->id == 143 || one->id == 45 || one->id == 52 || one->id == 59) {
        one->code = value(device, one->id == 143 ? ROWS : NVLINK_ERRORS, &one->value);
        one->value = 0; /* the other kinds of one sum */
    }
    return one->code == LOST || one->code == NO_DRIVER ? one->code : OK;
}
int nvmlDeviceGetFieldValues(const void *device, int count, struct field *fields) {
    int code = OK;
    for (int at = 0; at < count && !code; at++) code = field(device, &fields[at]);
    return code;
}

struct process { unsigned pid; unsigned long long bytes; unsigned gpu_instance, compute_instance; };
int nvmlDeviceGetComputeRunningProcesses_v3(const void *device, unsigned *count, struct process *all) {
    enter();
    const struct gpu *gpu = gpu_of(device);
    int code = state_of(device);
    if (!code && gpu->missing[PROCESS]) code = NOT_SUPPORTED;
    unsigned room = *count;
    if (!code) {
        *count = gpu->processes;
        if (gpu->processes > room) code = SMALL;
    }
    for (unsigned at = 0; !code && at < gpu->processes; at++) {
        struct process one = {gpu->process[at].pid, gpu->process[at].bytes, ~0u, ~0u};
        all[at] = one;
    }
    return leave(code);
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(const void *device, unsigned *count, struct process *all) {
    (void)all;
    enter();
    *count = 0;
    return leave(state_of(device));
}

struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; };
static void address(int index, struct pci *info) {
    memset(info, 0, sizeof *info);
    /* Of a domain that no machine has, so that the kernel says nothing of it. */
    snprintf(info->bus_id, sizeof info->bus_id, "000000FE:%02X:00.0", 0xa0 + index);
}
int nvmlDeviceGetPciInfo_v3(const void *device, struct pci *info) {
    enter();
    address(index_of(device), info);
    return leave(state_of(device));
}
int nvmlDeviceGetNvLinkState(const void *device, unsigned link, unsigned *active) {
    enter();
    *active = link < gpu_of(device)->links;
    return leave(state_of(device));
}
int nvmlDeviceGetNvLinkRemotePciInfo_v2(const void *device, unsigned link, struct pci *info) {
    enter();
    int code = state_of(device);
    if (!code) code = link >= gpu_of(device)->links ? INVALID : OK;
    int other = code ? -1 : gpu_of(device)->link[link];
    if (!code && other < 0) code = NOT_SUPPORTED;
    if (!code) address(other, info);
    return leave(code);
}

int nvmlDeviceGetMigMode(const void *device, unsigned *current, unsigned *pending) {
    enter();
    *current = *pending = gpu_of(device)->divided;
    return leave(state_of(device));
}
int nvmlDeviceGetMaxMigDeviceCount(const void *device, unsigned *count) {
    enter();
    *count = PLACES;
    return leave(state_of(device));
}
int nvmlDeviceGetMigDeviceHandleByIndex(const void *device, unsigned place, void **instance) {
    enter();
    int code = state_of(device);
    if (!code && (place >= PLACES || !gpu_of(device)->instances[place].there)) code = NOT_FOUND;
    if (!code) *instance = (void *)(long)(INSTANCES + index_of(device) * PLACES + (int)place);
    return leave(code);
}

/* Sets of events: one queue for all, as no test needs more. What is raised before a set is made
   waits for it, so that a test need not know when that is. */
struct event { void *device; unsigned long long type, data; unsigned gpu_instance, compute_instance; };
static int set;
int nvmlEventSetCreate(void **made) {
    enter();
    *made = &set;
    return leave(now.off ? NO_DRIVER : OK);
}
int nvmlEventSetFree(void *one) { (void)one; return OK; }
int nvmlDeviceRegisterEvents(const void *device, unsigned long long types, void *one) {
    (void)types, (void)one;
    enter();
    return leave(state_of(device));
}
/* Opens what tells of changes of the file. A driver waits for its device and takes no time meanwhile. */
static int watch(void) {
    char folder[4096];
    int changes = inotify_init1(IN_CLOEXEC);
    snprintf(folder, sizeof folder, "%s", file());
    inotify_add_watch(changes, dirname(folder), IN_CLOSE_WRITE | IN_MOVED_TO | IN_DELETE);
    return changes;
}
static void wait_for_change(int changes, int most_ms) {
    struct pollfd one = {changes, POLLIN, 0};
    char events[4096];
    if (poll(&one, 1, most_ms) <= 0) return;
    if (read(changes, events, sizeof events) < 0) abort();
    pthread_mutex_lock(&lock);
    looked.tv_sec = 0;
    pthread_mutex_unlock(&lock);
}
/* Takes what happened; TIMEOUT where nothing has. */
static int take_event(struct event *data) {
    enter();
    if (now.off) return leave(NO_DRIVER);
    if (xids_taken == now.xids) return leave(TIMEOUT);
    struct event event = {(void *)(long)(now.xid[xids_taken].gpu + 1), 8,
                          now.xid[xids_taken].code, ~0u, ~0u};
    xids_taken++;
    *data = event;
    return leave(OK);
}
int nvmlEventSetWait_v2(void *one, struct event *data, unsigned timeout_ms) {
    (void)one;
    struct timespec from, at;
    int changes = watch(), taken;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (long left = timeout_ms; (taken = take_event(data)) == TIMEOUT && left > 0;) {
        wait_for_change(changes, (int)left);
        clock_gettime(CLOCK_MONOTONIC, &at);
        left = (long)timeout_ms - (at.tv_sec - from.tv_sec) * 1000 - (at.tv_nsec - from.tv_nsec) / 1000000;
    }
    close(changes);
    return taken;
}
