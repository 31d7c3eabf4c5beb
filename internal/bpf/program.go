// Package bpf makes and loads a small eBPF program, for which no compiler is
// needed, and finds where the running kernel keeps a field of a struct.
package bpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Register is a register of the virtual machine (R1 to R5 are a call's arguments,
// R0 its result and the program's; R6 to R9 survive a call; R10 is the frame
// pointer).
type Register uint8

// The registers.
const (
	R0 Register = iota
	R1
	R2
	R3
	R4
	R5
	R6
	R7
	R8
	R9
	R10
)

// instruction is struct bpf_insn (linux/bpf.h).
type instruction struct {
	code   uint8
	dst    Register
	src    Register
	offset int16
	value  int32
	target string // of a jump, which gets its offset from it
}

// Program is a program in the making, one instruction after the other. The zero
// value is empty.
type Program struct {
	instructions []instruction
	labels       map[string]int
}

func (p *Program) add(i instruction) { p.instructions = append(p.instructions, i) }

// Label names the place of the next instruction.
func (p *Program) Label(name string) {
	if p.labels == nil {
		p.labels = map[string]int{}
	}
	p.labels[name] = len(p.instructions)
}

// Move copies a register.
func (p *Program) Move(dst, src Register) {
	p.add(instruction{code: unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_X, dst: dst, src: src})
}

// Set gives a register a value.
func (p *Program) Set(dst Register, value int32) {
	p.add(instruction{code: unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K, dst: dst, value: value})
}

// Do applies an operation (unix.BPF_ADD, …) with a value.
func (p *Program) Do(operation uint8, dst Register, value int32) {
	p.add(instruction{code: unix.BPF_ALU64 | operation | unix.BPF_K, dst: dst, value: value})
}

// DoWith applies an operation with another register.
func (p *Program) DoWith(operation uint8, dst, src Register) {
	p.add(instruction{code: unix.BPF_ALU64 | operation | unix.BPF_X, dst: dst, src: src})
}

// Load reads from memory, which is as wide as size says (unix.BPF_B, …).
func (p *Program) Load(size uint8, dst, src Register, offset int16) {
	p.add(instruction{code: unix.BPF_LDX | unix.BPF_MEM | size, dst: dst, src: src, offset: offset})
}

// Jump goes on at a label.
func (p *Program) Jump(label string) {
	p.add(instruction{code: unix.BPF_JMP | unix.BPF_JA, target: label})
}

// JumpIf goes on at a label if a comparison (unix.BPF_JEQ, …) with a value holds.
func (p *Program) JumpIf(comparison uint8, dst Register, value int32, label string) {
	p.add(instruction{code: unix.BPF_JMP | comparison | unix.BPF_K, dst: dst, value: value, target: label})
}

// JumpIfWith is JumpIf with another register.
func (p *Program) JumpIfWith(comparison uint8, dst, src Register, label string) {
	p.add(instruction{code: unix.BPF_JMP | comparison | unix.BPF_X, dst: dst, src: src, target: label})
}

// Call calls a helper function (bpf-helpers(7)) by its number.
func (p *Program) Call(helper int32) {
	p.add(instruction{code: unix.BPF_JMP | unix.BPF_CALL, value: helper})
}

// Exit ends the program with R0.
func (p *Program) Exit() {
	p.add(instruction{code: unix.BPF_JMP | unix.BPF_EXIT})
}

// Bytes is the program as the kernel takes it.
func (p *Program) Bytes() ([]byte, error) {
	var b []byte
	for at, i := range p.instructions {
		if i.target != "" {
			to, ok := p.labels[i.target]
			if !ok || to-at-1 > math.MaxInt16 || to <= at {
				return nil, fmt.Errorf("jump from instruction %d to %s is not forward", at, i.target)
			}
			i.offset = int16(to - at - 1)
		}
		registers := uint8(i.src)<<4 | uint8(i.dst)
		if isBigEndian() { // the order of bit fields, too
			registers = uint8(i.dst)<<4 | uint8(i.src)
		}
		b = append(b, i.code, registers)
		b = binary.NativeEndian.AppendUint16(b, uint16(i.offset))
		b = binary.NativeEndian.AppendUint32(b, uint32(i.value))
	}
	return b, nil
}

func isBigEndian() bool { return binary.NativeEndian.Uint16([]byte{0, 1}) == 1 }

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
