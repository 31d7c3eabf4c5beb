package control

import (
	"net"
	"slices"
	"sync"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
)

// fewConns takes every connection and keeps podConnections of them: one more ends the oldest
// of the user who has the most. So whoever stays connected keeps nobody out, and another
// user's process no answer from who waits for it. Who waits and is ended asks again.
type fewConns struct {
	net.Listener
	mu   sync.Mutex
	open []*fewConn // the oldest first
}

type fewConn struct {
	net.Conn
	of   *fewConns
	user uint32
}

// Accept is the listener's.
func (l *fewConns) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &fewConn{Conn: conn, of: l}
	if peer, err := statedir.Peer(conn.(*net.UnixConn)); err == nil {
		c.user = peer.Uid
	}
	l.mu.Lock()
	l.open = append(l.open, c)
	var most *fewConn
	if len(l.open) > podConnections {
		most = l.oldest()
	}
	l.mu.Unlock()
	if most != nil {
		_ = most.Close() // it is of no use any more
	}
	return c, nil
}

// oldest is the oldest connection of the user who has the most. The lock is held.
func (l *fewConns) oldest() *fewConn {
	has, most := map[uint32]int{}, 0
	for _, c := range l.open {
		has[c.user]++
		most = max(most, has[c.user])
	}
	return l.open[slices.IndexFunc(l.open, func(c *fewConn) bool { return has[c.user] == most })]
}

// Close is the connection's.
func (c *fewConn) Close() error {
	c.of.mu.Lock()
	c.of.open = slices.DeleteFunc(c.of.open, func(o *fewConn) bool { return o == c })
	c.of.mu.Unlock()
	return c.Conn.Close()
}
