package engine

import (
	"slices"
	"testing"
	"unicode/utf8"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
)

// A name is refused if the kernel refuses it, or makes another one of it, or if JSON can't
// say it, so that no record could be read.
func TestCheckName(t *testing.T) {
	t.Parallel()
	names := []string{"eth0", "a", "a.b", "..a", "...", "fifteen-letters", "sixteencharacter", ".", "..", "tap%d", "tap%", "größe", "voilà", "all", "default", "alle"}
	for c := 1; c < 256; c++ {
		names = append(names, string([]byte{'n', byte(c), 'n'}))
	}
	pod := podtest.NewBarePod(t)
	err := pod.Do(func() error {
		for _, name := range names {
			taken, err := takes(name)
			if err != nil {
				return err
			}
			if err := guest.CheckName(name); (err == nil) != (taken && utf8.ValidString(name)) {
				t.Errorf("%q: the kernel takes it: %t, we say %v", name, taken, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "nul\x00"} { // not to be told to the kernel
		if guest.CheckName(name) == nil {
			t.Errorf("%q is taken", name)
		}
	}
}

// takes reports whether the kernel makes a link of that name.
func takes(name string) (bool, error) {
	conn, err := nl.Open()
	if err != nil {
		return false, err
	}
	defer conn.Close()
	info := vnl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(vnl.IFLA_INFO_KIND, []byte(podtest.SwitchKind))
	if conn.Request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, vnl.NewIfInfomsg(unix.AF_UNSPEC),
		vnl.NewRtAttr(unix.IFLA_IFNAME, vnl.ZeroTerminated(name)), info) != nil {
		return false, nil
	}
	links, err := conn.Links()
	return slices.ContainsFunc(links, func(l nl.Link) bool { return l.Name == name }), err
}
