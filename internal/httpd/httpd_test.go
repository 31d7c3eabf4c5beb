package httpd

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// serve starts a server on a socket, and returns what connects to it.
func serve(t *testing.T, patience time.Duration, handlers map[string]Handler) (s *Server, dial func() net.Conn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sock")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s = NewServer(patience, handlers)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-served; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return s, func() net.Conn {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
}

var hello = map[string]Handler{"/hello": func(_ context.Context, query url.Values) *Answer {
	return &Answer{Status: OK, Type: "text/x-greeting", Header: map[string]string{"To": query.Get("to")}, Body: []byte("hello " + query.Get("to"))}
}}

// The library's client understands the server, and asks as many others do.
func TestServerForTheLibrarysClient(t *testing.T) {
	t.Parallel()
	_, dial := serve(t, time.Minute, hello)
	client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return dial(), nil }}}
	for _, c := range []struct{ method, resource, status, body string }{
		{"GET", "/hello?to=you", "200 OK", "hello you"},
		{"GET", "/hello?to=a%20b", "200 OK", "hello a b"},
		{"HEAD", "/hello?to=you", "200 OK", ""},
		{"POST", "/hello", "405 Method Not Allowed", ""},
		{"GET", "/elsewhere", "404 Not Found", "404 page not found\n"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, "http://server"+c.resource, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("%s %s: %v", c.method, c.resource, err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.Status != c.status || string(body) != c.body {
			t.Errorf("%s %s: %s %q, %v, want %s %q", c.method, c.resource, resp.Status, body, err, c.status, c.body)
		}
		if date, err := http.ParseTime(resp.Header.Get("Date")); err != nil || time.Since(date).Abs() > time.Hour {
			t.Errorf("its date is %s: %v", date, err)
		}
	}
}

// The client understands the library's server, whether that knows the length or not.
func TestGetFromTheLibrarysServer(t *testing.T) {
	t.Parallel()
	for _, size := range []int{10, 100_000} {
		here, there := net.Pipe()
		server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Asked", r.URL.String())
			_, _ = io.WriteString(w, strings.Repeat("x", size))
		})}
		l := &once{conn: there}
		go server.Serve(l) //nolint:errcheck // it ends with the test
		r, err := Get(t.Context(), here, "server", "/some?thing=1", 200_000)
		if err != nil || r.Status != OK.String() || len(r.Body) != size || r.Header.Get("Asked") != "/some?thing=1" {
			t.Errorf("%s, %v, %d bytes, %v", r.Status, r.Header, len(r.Body), err)
		}
		server.Close()
	}
}

// once is a listener of one connection.
type once struct{ conn net.Conn }

func (o *once) Accept() (net.Conn, error) {
	if o.conn == nil {
		return nil, net.ErrClosed
	}
	conn := o.conn
	o.conn = nil
	return conn, nil
}

func (o *once) Close() error   { return nil }
func (o *once) Addr() net.Addr { return &net.UnixAddr{} }

// Whatever a server sends, it is told from an answer, and there is an end.
func TestGetFromOthers(t *testing.T) {
	t.Parallel()
	for sent, want := range map[string]string{
		"":                                    "EOF",
		"SSH-2.0-x\r\n":                       "does not answer by HTTP/1",
		"HTTP/1.1 200 OK\r\n":                 "EOF",
		"HTTP/1.1 200 OK\r\nno field\r\n\r\n": "malformed",
		"HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 10_000) + "\r\n": "read header",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfour":                  "unexpected EOF",
	} {
		here, there := net.Pipe()
		go func() {
			_, _ = io.CopyN(io.Discard, there, int64(len("GET / HTTP/1.0\r\nHost: x\r\n\r\n")))
			_, _ = io.WriteString(there, sent)
			there.Close()
		}()
		if _, err := Get(t.Context(), here, "x", "/", 100); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %s", sent, err, want)
		}
		here.Close()
	}
	here, _ := net.Pipe()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := Get(ctx, here, "x", "/", 100); err == nil {
		t.Error("one that says nothing is waited for without end")
	}
}

// What is no request is told so, or ends with the patience; the server goes on.
func TestServerOfOthers(t *testing.T) {
	t.Parallel()
	_, dial := serve(t, 50*time.Millisecond, hello)
	for sent, want := range map[string]string{
		"x\r\n\r\n":                            "HTTP/1.1 400",
		"GET /hello\r\n\r\n":                   "HTTP/1.1 400",
		"GET hello HTTP/1.1\r\n\r\n":           "HTTP/1.1 400",
		"GET /hello HTTP/2.0\r\n\r\n":          "HTTP/1.1 400",
		"GET /" + strings.Repeat("x", 100_000): "HTTP/1.1 400",
		"GET /hello HTTP/1.1\r\nHost: x\r\n":   "", // and nothing more
		"GET /hello HTTP/1.0\n\n":              "HTTP/1.1 200",
		"GET http://x/hello HTTP/1.1\r\n\r\n":  "HTTP/1.1 200",
	} {
		conn := dial()
		_, _ = io.WriteString(conn, sent) // the server need not read all of it
		got, _ := io.ReadAll(conn)
		if first, _, _ := strings.Cut(string(got), "\r\n"); !strings.HasPrefix(first, want) || want == "" && first != "" {
			t.Errorf("%.40q: %q, want %q", sent, first, want)
		}
	}
}

// Who waits has gone: the handler is told. The server ends: who waits gets no answer.
func TestWaiting(t *testing.T) {
	t.Parallel()
	began, ended := make(chan bool), make(chan bool)
	s, dial := serve(t, time.Minute, map[string]Handler{"/wait": func(ctx context.Context, _ url.Values) *Answer {
		began <- true
		<-ctx.Done()
		ended <- true
		return nil
	}})
	ask := func() net.Conn {
		conn := dial()
		if _, err := io.WriteString(conn, "GET /wait HTTP/1.1\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		<-began
		return conn
	}
	ask().Close()
	<-ended
	conn := ask()
	go s.Close()
	<-ended
	if got, err := io.ReadAll(conn); len(got) > 0 {
		t.Errorf("got %q, %v", got, err)
	}
}
