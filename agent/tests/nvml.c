/* A libnvidia-ml with two GPUs, for the probe's test. Built with -DHANG a reading never returns,
   as with a driver that hangs. */
#include <string.h>
#include <unistd.h>

typedef int ret;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory;
typedef struct { unsigned gpu, memory; } rates;

static int index_of(void *device) { return (int)(long)device - 1; }

ret nvmlInit_v2(void) { return 0; }
ret nvmlShutdown(void) { return 0; }
ret nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
ret nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = (void *)(long)(index + 1);
    return 0;
}
ret nvmlDeviceGetUUID(void *device, char *text, unsigned length) {
    strncpy(text, index_of(device) ? "GPU-b" : "GPU-a", length);
    return 0;
}
ret nvmlDeviceGetName(void *device, char *text, unsigned length) {
    (void)device;
    strncpy(text, "Test 9000", length);
    return 0;
}
ret nvmlDeviceGetMemoryInfo_v2(void *device, memory *info) {
    info->total = 80ull << 30;
    info->used = (unsigned long long)(index_of(device) + 1) << 30;
    return 0;
}
ret nvmlDeviceGetUtilizationRates(void *device, rates *rates) {
#ifdef HANG
    for (;;) pause();
#endif
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
