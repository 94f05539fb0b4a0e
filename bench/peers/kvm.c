/* The C peer of bench/ketuvim.py: the same guests through the raw ioctls.
   Usage: kvm cycle ROUNDS | kvm exits ROUNDS; prints nanoseconds, for cycle one line each round. */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MEMORY 0x10000
#define ENTRY 0x1000

struct machine {
    int vm, vcpu;
    char *memory;
    struct kvm_run *run;
};

static int kvm, run_size;
static const unsigned char halt[] = {0xf4};
static const unsigned char writes[] = {0xba, 0xf8, 0x03, 0xee, 0xeb, 0xfd}; /* mov dx, 0x3f8; again: out dx, al; jmp again */

static void check(int holds, const char *what)
{
    if (!holds) {
        perror(what);
        exit(1);
    }
}

static unsigned long long now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

static struct machine boot(const unsigned char *code, size_t size)
{
    struct machine it = {.vm = ioctl(kvm, KVM_CREATE_VM, 0)};
    struct kvm_userspace_memory_region region = {.memory_size = MEMORY};
    struct kvm_sregs special;
    struct kvm_regs registers = {.rip = ENTRY, .rflags = 2};
    check(it.vm >= 0, "KVM_CREATE_VM");
    it.memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(it.memory != MAP_FAILED, "mmap");
    memcpy(it.memory + ENTRY, code, size);
    region.userspace_addr = (unsigned long)it.memory;
    check(ioctl(it.vm, KVM_SET_USER_MEMORY_REGION, &region) == 0, "KVM_SET_USER_MEMORY_REGION");
    it.vcpu = ioctl(it.vm, KVM_CREATE_VCPU, 0);
    check(it.vcpu >= 0, "KVM_CREATE_VCPU");
    it.run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, it.vcpu, 0);
    check(it.run != MAP_FAILED, "mmap of the processor");
    check(ioctl(it.vcpu, KVM_GET_SREGS, &special) == 0, "KVM_GET_SREGS");
    special.cs.base = special.cs.selector = 0;
    check(ioctl(it.vcpu, KVM_SET_SREGS, &special) == 0, "KVM_SET_SREGS");
    check(ioctl(it.vcpu, KVM_SET_REGS, &registers) == 0, "KVM_SET_REGS");
    return it;
}

static void tear_down(struct machine it)
{
    munmap(it.run, run_size);
    close(it.vcpu);
    close(it.vm);
    munmap(it.memory, MEMORY);
}

static void cycle(long rounds)
{
    for (long at = 0; at < rounds; at++) {
        unsigned long long started = now();
        struct machine it = boot(halt, sizeof halt);
        check(ioctl(it.vcpu, KVM_RUN, 0) == 0 && it.run->exit_reason == KVM_EXIT_HLT, "KVM_RUN");
        tear_down(it);
        printf("%llu\n", now() - started);
    }
}

static void exits(long rounds)
{
    struct machine it = boot(writes, sizeof writes);
    unsigned long long started = now(), bytes = 0;
    for (long at = 0; at < rounds; at++) {
        check(ioctl(it.vcpu, KVM_RUN, 0) == 0 && it.run->exit_reason == KVM_EXIT_IO, "KVM_RUN");
        bytes += it.run->io.size * it.run->io.count;
    }
    started = now() - started;
    check(bytes == (unsigned long long)rounds, "bytes");
    printf("%llu\n", started);
    tear_down(it);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    check(kvm >= 0, "/dev/kvm");
    run_size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    (strcmp(argv[1], "cycle") ? exits : cycle)(atol(argv[2]));
    return 0;
}
