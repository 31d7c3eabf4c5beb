package nl

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Of what the kernel answers, those of IPv4 and IPv6 are taken, in this order.
func TestMessagesOfBothFamilies(t *testing.T) {
	conn, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for what, get := range map[string]int{"routes": unix.RTM_GETROUTE, "addresses": unix.RTM_GETADDR, "rules": unix.RTM_GETRULE} {
		of := map[byte]int{}
		if err := conn.Messages(get, func(m []byte) {
			if m[0] == unix.AF_INET && of[unix.AF_INET6] > 0 {
				t.Errorf("%s: one of IPv4 behind one of IPv6", what)
			}
			of[m[0]]++
		}); err != nil {
			t.Fatal(err)
		}
		if of[unix.AF_INET] == 0 || of[unix.AF_INET6] == 0 || len(of) != 2 {
			t.Errorf("%s: by family %v", what, of)
		}
	}
}
