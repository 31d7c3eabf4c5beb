package nl

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Where a family is not there (ipv6.disable=1) the kernel answers a dump of it with
// those that are, as this one is for no family at all.
func TestDumpAnswersWithOtherFamilies(t *testing.T) {
	conn, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for name, dump := range map[string]struct{ request, answer uint16 }{
		"routes": {unix.RTM_GETROUTE, unix.RTM_NEWROUTE}, "addresses": {unix.RTM_GETADDR, unix.RTM_NEWADDR},
	} {
		all, err := conn.dump(int(dump.request), dump.answer, make(raw, unix.SizeofRtMsg))
		if err != nil {
			t.Fatal(err)
		}
		total := len(all)
		ipv4 := len(ofFamilies(append([][]byte{}, all...), unix.AF_INET))
		ipv6 := len(ofFamilies(append([][]byte{}, all...), unix.AF_INET6))
		if ipv4 == 0 || ipv6 == 0 || ipv4+ipv6 > total {
			t.Errorf("%s: %d of IPv4 and %d of IPv6 in %d", name, ipv4, ipv6, total)
		}
		both := ofFamilies(all, unix.AF_INET, unix.AF_INET6)
		for _, m := range ofFamilies(both, unix.AF_INET) {
			if m[0] != unix.AF_INET {
				t.Errorf("%s: of family %d", name, m[0])
			}
		}
	}
}
