package nft

import (
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// reuse has a rule load each part of a set's key once: what it compares is compared where
// the key has it. nft(8) loads it once more for each, and the kernel takes some
// nanoseconds for each, for each frame.
func reuse(exprs []expr.Any) []expr.Any {
	parts := keyParts(exprs)
	if len(parts) == 0 {
		return exprs
	}
	out := make([]expr.Any, 0, len(exprs))
	loaded := map[any]bool{}
	for i := 0; i < len(exprs); {
		field, to := loads(exprs[i])
		register, isPart := parts[field]
		next := i + 1
		for next < len(exprs) && compared(exprs[next], register) != nil {
			next++
		}
		if !isPart || to != register && next == i+1 {
			out = append(out, exprs[i])
			i++
			continue
		}
		if !loaded[field] {
			loaded[field] = true
			out = append(out, loadedTo(field, register))
		}
		for _, e := range exprs[i+1 : next] {
			out = append(out, compared(e, register))
		}
		i = next
	}
	return out
}

// keyParts are the registers of what the rule's keys are made of; nil, if there is none,
// or two need a register for different fields.
func keyParts(exprs []expr.Any) map[any]uint32 {
	var parts map[any]uint32
	fields := map[uint32]any{}
	for _, e := range exprs {
		field, to := loads(e)
		if field == nil || to == unix.NFT_REG_1 {
			continue
		}
		if parts == nil {
			parts = map[any]uint32{}
		}
		if other, is := fields[to]; is && other != field {
			return nil
		}
		if other, is := parts[field]; is && other != to {
			return nil
		}
		fields[to], parts[field] = field, to
	}
	return parts
}

// loads tells what the expression loads, of which the same is equal, and to which register;
// nil: nothing.
func loads(e expr.Any) (field any, register uint32) {
	switch e := e.(type) {
	case *expr.Payload:
		if load := *e; e.OperationType == expr.PayloadLoad {
			load.DestRegister = 0
			return load, e.DestRegister
		}
	case *expr.Meta:
		if load := *e; !e.SourceRegister {
			load.Register = 0
			return load, e.Register
		}
	case *expr.Exthdr:
		load := *e
		load.DestRegister = 0
		return load, e.DestRegister
	}
	return nil, 0
}

// loadedTo loads a field of loads to a register.
func loadedTo(field any, register uint32) expr.Any {
	switch load := field.(type) {
	case expr.Payload:
		load.DestRegister = register
		return &load
	case expr.Meta:
		load.Register = register
		return &load
	case expr.Exthdr:
		load.DestRegister = register
		return &load
	}
	return nil // it is none of loads
}

// compared is a comparison of what is in another register than the first; nil: it is none.
func compared(e expr.Any, register uint32) expr.Any {
	switch e := e.(type) {
	case *expr.Cmp:
		comparison := *e
		comparison.Register = register
		return &comparison
	case *expr.Range:
		comparison := *e
		comparison.Register = register
		return &comparison
	default:
		return nil
	}
}
