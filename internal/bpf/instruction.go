package bpf

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Instruction is one of an eBPF program (struct bpf_insn, linux/bpf.h), with labels in
// place of distances. See Documentation/bpf/standardization/instruction-set.rst.
type Instruction struct {
	code     uint8
	dst, src Register
	offset   int16
	constant int32
	label    string // others jump here by it
	to       string // of where it jumps
}

// Labelled is the instruction with a label.
func (i Instruction) Labelled(label string) Instruction {
	i.label = label
	return i
}

// Register is one of eleven. A call takes R1 to R5, and returns R0; R10 is the frame
// pointer.
type Register uint8

// Registers.
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

// Classes of instructions, and what they are combined with.
const (
	classLoad  = 0x01
	classJump  = 0x05
	classALU64 = 0x07
	modeMemory = 0x60
	fromSource = 0x08
	call       = 0x80
	exit       = 0x90
)

// Operation is one of 64-bit arithmetic.
type Operation uint8

// Operations.
const (
	Add Operation = 0x00
	Sub Operation = 0x10
	Or  Operation = 0x40
	And Operation = 0x50
	LSh Operation = 0x60
	RSh Operation = 0x70
	Mov Operation = 0xb0
)

// Reg has a register as its operand.
func (o Operation) Reg(dst, src Register) Instruction {
	return Instruction{code: classALU64 | fromSource | uint8(o), dst: dst, src: src}
}

// Imm has a constant as its operand.
func (o Operation) Imm(dst Register, constant int32) Instruction {
	return Instruction{code: classALU64 | uint8(o), dst: dst, constant: constant}
}

// Condition is one of a jump: how a register compares to a constant.
type Condition uint8

// Conditions; S: with a sign.
const (
	JEq  Condition = 0x10
	JGT  Condition = 0x20
	JNE  Condition = 0x50
	JSGE Condition = 0x70
	JLT  Condition = 0xa0
	JSLT Condition = 0xc0
)

// Imm jumps to a label, which is further on, if the condition is met.
func (c Condition) Imm(dst Register, constant int32, label string) Instruction {
	return Instruction{code: classJump | uint8(c), dst: dst, constant: constant, to: label}
}

// Jump jumps to a label, which is further on.
func Jump(label string) Instruction { return Instruction{code: classJump, to: label} }

// Size is that of what is loaded.
type Size uint8

// Sizes: one and two bytes.
const (
	Half Size = 0x08
	Byte Size = 0x10
)

// LoadMem loads what is at a place behind src.
func LoadMem(dst, src Register, offset int16, size Size) Instruction {
	return Instruction{code: classLoad | modeMemory | uint8(size), dst: dst, src: src, offset: offset}
}

// Helper is a function of the kernel (enum bpf_func_id, linux/bpf.h).
type Helper int32

// Helpers.
const (
	SkbLoadBytes    Helper = 26
	ProbeReadKernel Helper = 113
)

// Call calls it.
func (h Helper) Call() Instruction {
	return Instruction{code: classJump | call, constant: int32(h)}
}

// Return ends the program.
func Return() Instruction { return Instruction{code: classJump | exit} }

// Assemble is a program as the kernel takes it.
func Assemble(program []Instruction) ([]byte, error) {
	labels := map[string]int{}
	for at, i := range program {
		if i.label != "" {
			labels[i.label] = at
		}
	}
	b := make([]byte, 0, 8*len(program))
	for at, i := range program {
		if i.to != "" {
			target, ok := labels[i.to]
			if distance := target - at - 1; ok && distance >= 0 && distance <= math.MaxInt16 {
				i.offset = int16(distance)
			} else {
				return nil, fmt.Errorf("assemble BPF program: instruction %d can't jump to %q", at, i.to)
			}
		}
		registers := uint8(i.src<<4 | i.dst)
		if isBigEndian() {
			registers = uint8(i.dst<<4 | i.src)
		}
		b = append(b, i.code, registers)
		b = binary.NativeEndian.AppendUint16(b, uint16(i.offset))
		b = binary.NativeEndian.AppendUint32(b, uint32(i.constant))
	}
	return b, nil
}

func isBigEndian() bool { return binary.NativeEndian.Uint16([]byte{0, 1}) == 1 }
