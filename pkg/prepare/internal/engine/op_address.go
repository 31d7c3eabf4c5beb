package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// AddAddress gives a link that was made an address, of which the attributes tell, unless
// it has it. Some CNIs turn IPv6 off on all links that are made, and on again on their
// own: where it is off, it is turned on.
func (k *Kernel) AddAddress(link string, address netip.Addr, attrs ...vnl.NetlinkRequestData) error {
	request := func() error {
		return Ignore(k.Conn.Request(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, attrs...), unix.EEXIST)
	}
	err := request()
	if !address.Is6() || !errors.Is(err, unix.EACCES) {
		return err
	}
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+link+"/disable_ipv6", []byte("0"), 0); err != nil {
		return Advise(fmt.Errorf("IPv6 is off on %s, as on all links that are made in the pod (net.ipv6.conf.default.disable_ipv6), and can't be turned on: %w: "+
			"prepare the pod from the node, or leave the VM's IPv6 out", link, err))
	}
	return request()
}
