package nl

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// What the kernel says to a refusal is told, links that do not fit one datagram are all
// read, and the socket works on after each.
func TestSocket(t *testing.T) {
	t.Parallel()
	ns := podtest.New(t)
	const links = 60
	for i := range links {
		ns.IP(t, fmt.Sprintf("link add d%d type bridge", i))
	}
	if err := ns.Do(func() error {
		c, err := Open()
		if err != nil {
			return err
		}
		defer c.Close()
		kind := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
		kind.AddRtAttr(nl.IFLA_INFO_KIND, []byte("nosuchkind"))
		err = c.Request(unix.RTM_NEWLINK, unix.NLM_F_CREATE, nl.NewIfInfomsg(unix.AF_UNSPEC), kind)
		if !errors.Is(err, unix.EOPNOTSUPP) || !strings.Contains(err.Error(), "Unknown device type") {
			t.Errorf("a kind that no kernel has: %v", err)
		}
		if err := c.Delete(Ref{Name: "none"}); !errors.Is(err, unix.ENODEV) {
			t.Errorf("a link that is not there: %v", err)
		}
		if _, err := c.Index("none"); !errors.Is(err, unix.ENODEV) {
			t.Errorf("its index: %v", err)
		}
		index, err := c.Index("d7")
		if err != nil {
			return err
		}
		if err := errors.Join(c.Set(Ref{Index: index}, nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated("e7"))),
			c.SetFlags(Ref{Name: "e7"}, unix.IFF_UP, unix.IFF_UP), c.Delete(Ref{Name: "d8"})); err != nil {
			return err
		}
		all, err := c.Links()
		var up []string
		for _, l := range all {
			if l.Up() {
				up = append(up, l.Name)
			}
		}
		if len(all) < links || strings.Join(up, " ") != "lo e7" {
			t.Errorf("%d links, up are %v", len(all), up)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// What is cut off is no message.
func TestSplit(t *testing.T) {
	t.Parallel()
	b := AppendMessage(AppendMessage(nil, 1, 2, 3, []byte("odd")), 4, 5, 6, nil)
	all, err := Split(b)
	if err != nil || len(all) != 2 || string(all[0].Data) != "odd" || all[1].Type != 4 || all[1].Flags != 5 || all[1].Sequence != 6 {
		t.Errorf("%+v, %v", all, err)
	}
	if all, err := Split(b[:18]); err == nil {
		t.Errorf("of one that is cut off: %+v", all)
	}
}
