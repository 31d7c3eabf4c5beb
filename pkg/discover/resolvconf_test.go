package discover

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseResolvConf(t *testing.T) {
	for _, c := range []struct {
		name, file string
		servers    string
		search     string
		leftOut    []string // a part of each
	}{
		{"kubelet's", "search ns.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n", "10.96.0.10", "ns.svc.cluster.local svc.cluster.local cluster.local", nil},
		{"CRLF, tabs, comments", "# a comment\r\nnameserver\t10.0.0.1 \r\n;other\r\nsearch\ta.example   b.example # why\r\n", "10.0.0.1", "a.example b.example", nil},
		{"IPv6", "nameserver fd00::a\nnameserver fe80::1%eth0\nnameserver 192.0.2.1\n", "fd00::a fe80::1%eth0 192.0.2.1", "", nil},
		{"the last search counts", "domain old.example\nsearch a.example\nsearch b.example\n", "", "b.example", nil},
		{"domain has one", "domain a.example b.example", "", "a.example", nil},
		{"empty", "", "", "", nil},
		{"a stub on the host", "nameserver 127.0.0.53\nnameserver ::1\nnameserver 0.0.0.0\nnameserver 10.0.0.2\n", "10.0.0.2", "", []string{"127.0.0.53 means the host", "::1 means the host", "0.0.0.0 means the host"}},
		{"bad lines", "nameserver\nnameserver 10.0.0.300\nnamserver 10.0.0.1\nnameserver 10.0.0.2\n", "10.0.0.2", "", []string{"line 1", `"10.0.0.300"`, `"namserver"`}},
		{"binary", "nameserver 10.0.0.1\n\x00\xff\xfe\nsearch a.example", "10.0.0.1", "a.example", []string{"line 2: not text"}},
		{"a long word", "nameserver " + strings.Repeat("x", 5000), "", "", []string{"…"}},
		{"a long file", "nameserver 10.0.0.1\n" + strings.Repeat("# padding\n", 10000), "10.0.0.1", "", []string{"after the first"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := parseResolvConf([]byte(c.file))
			if got := strings.Trim(fmt.Sprint(r.Servers), "[]"); got != c.servers {
				t.Errorf("servers %q, want %q", got, c.servers)
			}
			if got := strings.Join(r.Search, " "); got != c.search {
				t.Errorf("search %q, want %q", got, c.search)
			}
			if len(r.LeftOut) != len(c.leftOut) {
				t.Fatalf("left out %q, want %q", r.LeftOut, c.leftOut)
			}
			for i, want := range c.leftOut {
				if !strings.Contains(r.LeftOut[i], want) {
					t.Errorf("left out %q, want %q", r.LeftOut[i], want)
				}
			}
		})
	}
}

// What DHCP has no word for is told apart.
func TestResolvConfOptions(t *testing.T) {
	r := parseResolvConf([]byte("options ndots:5 edns0\nsortlist 10.0.0.0/8\noptions rotate\n"))
	if got := strings.Join(r.Options, ","); got != "ndots:5,edns0,sortlist 10.0.0.0/8,rotate" || len(r.LeftOut) > 0 {
		t.Errorf("options %q, left out %q", got, r.LeftOut)
	}
}

// Only a regular file is read: others may block, or do something when opened.
func TestResolvConfOfAnotherKind(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, "/dev/zero", t.TempDir()} {
		if _, err := ReadResolvConf(path); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: got %v", path, err)
		}
	}
	if got, err := ReadResolvConf("/dev/null"); err != nil || len(got.Servers) > 0 || got.Unknown != "" {
		t.Errorf("/dev/null: got %+v, %v", got, err)
	}
}

func FuzzParseResolvConf(f *testing.F) {
	f.Add([]byte("search a.example\nnameserver 10.0.0.1\noptions ndots:5\n"))
	f.Add([]byte("nameserver fe80::1%eth0\r\n\x00;#"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := parseResolvConf(b)
		for _, s := range r.Servers {
			if !s.IsValid() {
				t.Errorf("an invalid server in %+v", r)
			}
		}
		if slices.Contains(r.Search, "") {
			t.Errorf("an empty domain in %q", r.Search)
		}
	})
}
