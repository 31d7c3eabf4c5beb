package statedir

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Namespace identifies a network namespace over the node's lifetime.
type Namespace struct {
	BootID string `json:"bootID"`
	Cookie uint64 `json:"cookie,omitempty"` // SO_NETNS_COOKIE; 0 before Linux 5.14, and where it is not known
	Inode  uint64 `json:"inode"`            // may be used again once the namespace is gone
}

// ErrNoNamespace means that a path is no namespace's.
var ErrNoNamespace = errors.New("it is not a network namespace; that of a process is /proc/PID/ns/net")

// Current identifies the network namespace of the calling thread.
func Current() (Namespace, error) {
	ns, err := Of("")
	if err != nil {
		return ns, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return ns, fmt.Errorf("identify network namespace: %w", err)
	}
	defer unix.Close(fd)
	ns.Cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
		return ns, fmt.Errorf("identify network namespace: %w", err)
	}
	return ns, nil
}

// Of identifies the network namespace at path, that of the calling thread if it
// is empty, without entering it. The cookie is not known then.
func Of(path string) (Namespace, error) {
	var ns Namespace
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ns, fmt.Errorf("read boot id: %w", err)
	}
	ns.BootID = strings.TrimSpace(string(id))
	if path == "" {
		path = current
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		err = &os.PathError{Op: "stat", Path: path, Err: err}
		if isAbsent(err) {
			err = fmt.Errorf("%w: the pod is gone, or its path is another: /run/netns/NAME or /proc/PID/ns/net", err)
		}
		return ns, err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return ns, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if fs.Type != unix.NSFS_MAGIC {
		return ns, ErrNoNamespace
	}
	ns.Inode = st.Ino
	return ns, nil
}

const current = "/proc/thread-self/ns/net"

// Same tells whether both are one namespace.
func (n Namespace) Same(m Namespace) bool {
	if n.Cookie != 0 && m.Cookie != 0 {
		return n.BootID == m.BootID && n.Cookie == m.Cookie
	}
	return n.BootID == m.BootID && n.Inode == m.Inode
}

// Gone tells whether n is certainly no more, as can be told from a namespace that
// is there now: the node was started anew since, or that one has its inode.
func (n Namespace) Gone(now Namespace) bool {
	return n.BootID != now.BootID || n.Inode == now.Inode && !n.Same(now)
}

// String names the namespace as readlink(1) of /proc/PID/ns/net does.
func (n Namespace) String() string { return "net:[" + strconv.FormatUint(n.Inode, 10) + "]" }

// dirName is the name of the namespace's own directory.
func (n Namespace) dirName() string { return "netns-" + strconv.FormatUint(n.Inode, 10) }
