/* A libnvidia-ml with two GPUs, for the probe's test. Built with -DHANG a reading never returns,
   as with a driver that hangs. Built with -DDIVIDED the first GPU has two MIG instances, in its
   places 0 and 2, and one NVLink to the second. Handles count from 1; those of instances from 10. */
#include <string.h>
#include <unistd.h>

typedef int ret;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory;
typedef struct { unsigned gpu, memory; } rates;
typedef struct {
    char legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char bus_id[32];
} pci;

static int index_of(void *device) { return (int)(long)device - 1; }
static int place_of(void *device) { return (int)(long)device - 10; }

ret nvmlInit_v2(void) { return 0; }
ret nvmlShutdown(void) { return 0; }
ret nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
ret nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = (void *)(long)(index + 1);
    return 0;
}
ret nvmlDeviceGetUUID(void *device, char *text, unsigned length) {
    const char *instance = place_of(device) ? "MIG-2" : "MIG-0";
    const char *whole = index_of(device) ? "GPU-b" : "GPU-a";
    strncpy(text, place_of(device) >= 0 ? instance : whole, length);
    return 0;
}
ret nvmlDeviceGetName(void *device, char *text, unsigned length) {
    strncpy(text, place_of(device) >= 0 ? "Test 9000 MIG 1g.10gb" : "Test 9000", length);
    return 0;
}
ret nvmlDeviceGetMemoryInfo_v2(void *device, memory *info) {
    info->total = (place_of(device) >= 0 ? 10ull : 80ull) << 30;
    info->used = (unsigned long long)(index_of(device) + 1) << 30;
    return 0;
}
ret nvmlDeviceGetUtilizationRates(void *device, rates *rates) {
#ifdef HANG
    for (;;) pause();
#endif
    if (place_of(device) >= 0) return 3; /* NVML_ERROR_NOT_SUPPORTED, as for real instances */
    rates->gpu = index_of(device) ? 7 : 93;
    return 0;
}
ret nvmlDeviceGetTemperature(void *device, unsigned sensor, unsigned *celsius) {
    (void)sensor;
    *celsius = 50 + index_of(device);
    return 0;
}
/* The second GPU does not know its power: NVML_ERROR_NOT_SUPPORTED. */
ret nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatt) {
    if (index_of(device)) return 3;
    *milliwatt = 312000;
    return 0;
}
ret nvmlDeviceGetPciInfo_v3(void *device, pci *info) {
    memset(info, 0, sizeof *info);
    strcpy(info->bus_id, index_of(device) ? "000000FE:FB:00.0" : "000000FE:FA:00.0");
    return 0;
}
#ifdef DIVIDED
ret nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending) {
    *current = *pending = index_of(device) == 0;
    return 0;
}
ret nvmlDeviceGetMaxMigDeviceCount(void *device, unsigned *count) {
    (void)device;
    *count = 7;
    return 0;
}
ret nvmlDeviceGetMigDeviceHandleByIndex(void *device, unsigned place, void **instance) {
    (void)device;
    if (place != 0 && place != 2) return 6; /* NVML_ERROR_NOT_FOUND */
    *instance = (void *)(long)(10 + place);
    return 0;
}
ret nvmlDeviceGetNvLinkState(void *device, unsigned link, unsigned *active) {
    *active = link == 3 && index_of(device) == 0;
    return 0;
}
ret nvmlDeviceGetNvLinkRemotePciInfo_v2(void *device, unsigned link, pci *info) {
    (void)device;
    (void)link;
    memset(info, 0, sizeof *info);
    strcpy(info->bus_id, "000000FE:FB:00.0");
    return 0;
}
#endif
