// Package bpf assembles and loads an eBPF program, and finds where the running kernel
// keeps a field of a struct.
package bpf

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// progLoad is what the kernel needs to know to load a program (union bpf_attr,
// linux/bpf.h).
type progLoad struct {
	kind         uint32
	count        uint32
	instructions uint64
	license      uint64
	logLevel     uint32
	logSize      uint32
	log          uint64
	version      uint32
	flags        uint32
	name         [unix.BPF_OBJ_NAME_LEN]byte
}

// LoadClassifier loads a program for tc(8) and returns its descriptor, which the
// caller closes. The program must be under a license that goes with the GPL.
// It needs the capabilities BPF, PERFMON and NET_ADMIN.
func LoadClassifier(name string, program []byte) (*os.File, error) {
	license := []byte("GPL\x00")
	attr := progLoad{
		kind: unix.BPF_PROG_TYPE_SCHED_CLS, count: uint32(len(program) / 8),
		instructions: uint64(uintptr(unsafe.Pointer(&program[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	copy(attr.name[:len(attr.name)-1], name)
	fd, err := load(&attr)
	if err == unix.EACCES || err == unix.EINVAL { // the verifier says why, if asked
		log := make([]byte, 1<<16)
		attr.logLevel, attr.logSize, attr.log = 1, uint32(len(log)), uint64(uintptr(unsafe.Pointer(&log[0])))
		if fd, err = load(&attr); err != 0 {
			return nil, fmt.Errorf("load BPF program: %w: %s", err, lastLines(log))
		}
		runtime.KeepAlive(log)
	}
	runtime.KeepAlive(program)
	runtime.KeepAlive(license)
	if err != 0 {
		return nil, fmt.Errorf("load BPF program: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func load(attr *progLoad) (fd int, err unix.Errno) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr))
		if errno != unix.EAGAIN && errno != unix.EINTR { // a signal came while the program was verified
			return int(r), errno
		}
	}
}

// lastLines is the end of what the verifier wrote, where it says what is wrong.
func lastLines(log []byte) []byte {
	log, _, _ = bytes.Cut(log, []byte{0})
	lines := bytes.Split(bytes.TrimSpace(log), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-4):], []byte("; "))
}
