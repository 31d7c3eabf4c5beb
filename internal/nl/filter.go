package nl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Where a link's frames can be filtered by tc(8) (linux/pkt_sched.h).
const (
	clsact  = 0xfffffff1 // TC_H_CLSACT
	Ingress = 0xfffffff2 // TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)
	Egress  = 0xfffffff3 // TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)
)

// The one place of a filter that SetFilter makes.
const (
	filterPriority = 1
	filterHandle   = 1
)

// FilterNames returns the names of the BPF filters at Ingress or Egress of the link
// with that index: none where there can be none. It needs no privileges.
func (c *Conn) FilterNames(index int, at uint32) ([]string, error) {
	msgs, err := c.dump(unix.RTM_GETTFILTER, unix.RTM_NEWTFILTER, &nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Parent: at})
	if err != nil {
		return nil, fmt.Errorf("read filters: %w", err)
	}
	var names []string
	for _, m := range msgs {
		attrs, err := attributes("filter", m, nl.SizeofTcMsg)
		if err != nil {
			return nil, err
		}
		name, err := filterName(attrs)
		if err != nil {
			return nil, err
		}
		if name != "" {
			names = append(names, name)
		}
	}
	return names, nil
}

// filterName returns a filter's name, or "" if it is no BPF filter.
func filterName(attrs []syscall.NetlinkRouteAttr) (string, error) {
	var kind string
	var options []byte
	for _, a := range attrs {
		switch attrType(a) {
		case nl.TCA_KIND:
			kind = nl.BytesToString(a.Value)
		case nl.TCA_OPTIONS:
			options = a.Value
		}
	}
	if kind != "bpf" {
		return "", nil
	}
	nested, err := nl.ParseRouteAttr(options)
	if err != nil {
		return "", fmt.Errorf("parse filter message: %w", err)
	}
	for _, o := range nested {
		if attrType(o) == nl.TCA_BPF_NAME {
			return nl.BytesToString(o.Value), nil
		}
	}
	return "", nil
}

// SetFilter has a BPF program judge each frame at Ingress or Egress of the link with
// that index, and gives it a name. It replaces one that SetFilter set before. The
// kernel keeps the program as long as the link.
func (c *Conn) SetFilter(index int, at uint32, program int, name string) error {
	queue := &nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Handle: 0xffff0000, Parent: clsact}
	err := c.Request(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, queue, nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("clsact")))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add clsact: %w", err)
	}
	allProtocols := uint16(unix.ETH_P_ALL)
	if binary.NativeEndian.Uint16([]byte{0, 1}) != 1 { // it is in network byte order
		allProtocols = bits.ReverseBytes16(allProtocols)
	}
	filter := &nl.TcMsg{
		Family: unix.AF_UNSPEC, Ifindex: int32(index), Handle: filterHandle, Parent: at,
		Info: filterPriority<<16 | uint32(allProtocols),
	}
	options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
	options.AddRtAttr(nl.TCA_BPF_FD, nl.Uint32Attr(uint32(program)))
	options.AddRtAttr(nl.TCA_BPF_NAME, nl.ZeroTerminated(name))
	options.AddRtAttr(nl.TCA_BPF_FLAGS, nl.Uint32Attr(nl.TCA_BPF_FLAG_ACT_DIRECT))
	err = c.Request(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE, filter, nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("bpf")), options)
	if err != nil {
		return fmt.Errorf("add filter: %w", err)
	}
	return nil
}
