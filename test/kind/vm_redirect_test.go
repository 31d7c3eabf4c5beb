package kind

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

const (
	app    = "app"                // the container beside the VM
	hello  = "hello from the app" // its page
	server = "hello from a pod"   // the page of the ordinary pod
	alias  = "169.254.100.2"      // where the pod reaches the VM
)

// TestRedirect follows a VM that shares its pod's address with a container.
func TestRedirect(t *testing.T) {
	apply(t)
	api := "https://" + get(t, "service/kubernetes", ".spec.clusterIP") + "/livez"
	inside := "http://server.default.svc.cluster.local"
	own := "http://self.vm-redirect.svc.cluster.local"
	v := newVM(t, "redirect", "vm-redirect", "vm-redirect", "Never", api, inside, own, own+":8080")
	before := left(t)
	v.apply(t)

	t.Run("ready", func(t *testing.T) {
		v.waitReady(t)
		v.checkReady(t)
	})
	t.Run("reach", func(t *testing.T) {
		v.reachBoth(t)
		want := map[string]string{api: "ok", inside: server, own: guest, own + ":8080": hello}
		if got := v.report(t).Got; !maps.Equal(got, want) {
			t.Errorf("the guest got %q, want %q", got, want)
		}
	})
	t.Run("probe of the container", v.testProbe)
	t.Run("metrics", v.testMetrics)
	t.Run("requests of the container", v.testRequests)
	t.Run("port-forward", func(t *testing.T) {
		v.forwarded(t, "8000", guest)
		v.forwarded(t, "8080", hello)
	})
	t.Run("restart of the sidecar", v.testRestartBoth)
	t.Run("end of the VM", v.end)
	restarted := newVM(t, "redirect", "vm-redirect", "vm-restarted", "Always")
	t.Run("sandbox made again", func(t *testing.T) {
		restarted.apply(t)
		restarted.waitReady(t)
		restarted.testSandbox(t)
		restarted.reachBoth(t)
		restarted.appGets(t, "http://"+alias, guest)
	})
	t.Run("nothing is left", func(t *testing.T) { nothingIsLeft(t, before, v, restarted) })
}

// reachBoth is how guest and container are there for others.
func (v *vm) reachBoth(t *testing.T) {
	t.Helper()
	v.reach(t)
	page(t, "http://"+v.ip(t)+":8080", hello)
	page(t, "http://"+v.service("vm-redirect-app"), hello)
}

// appGets has the container get a page.
func (v *vm) appGets(t *testing.T, url, want string) {
	t.Helper()
	if out := v.in(t, app, "curl", "-sS", "-k", "--max-time", "5", url); out != want {
		t.Errorf("%s gives the container %q, want %q", url, out, want)
	}
}

// The kubelet asks the container, not the VM: it is the container whose answer
// makes the pod Ready or not.
func (v *vm) testProbe(t *testing.T) {
	v.in(t, app, "busybox", "mv", "/srv/page/healthz", "/srv/page/away")
	v.kubectl(t, "wait", "--for=condition=Ready=false", "--timeout="+patience, "pod/"+v.pod)
	if ready := v.get(t, `.status.containerStatuses[?(@.name=="launcher")].ready`); ready != "true" {
		t.Errorf("the launcher, whose probe asks the VM, is ready: %s", ready)
	}
	v.in(t, app, "busybox", "mv", "/srv/page/away", "/srv/page/healthz")
	v.waitReady(t)
}

// Metrics of the container and of the sidecar, as another pod and the node see them.
func (v *vm) testMetrics(t *testing.T) {
	for url, want := range map[string]*regexp.Regexp{
		"http://" + v.ip(t) + ":9100/metrics.txt": regexp.MustCompile(`(?s)\{from="upstream"} [1-9].*\{from="vm"} [1-9]`),
		"http://" + v.ip(t) + ":9101/metrics":     regexp.MustCompile(`(?m)^virt_launcher_net_ready 1$`),
	} {
		for _, from := range [][]string{{"kubectl", "exec", "client", "--"}, {"docker", "exec", worker}} {
			eventually(t, func(ctx context.Context) error { // the container asks every five seconds
				out, err := try(ctx, from[0], append(from[1:], "curl", "-sS", "--max-time", "3", url)...)
				if err == nil && !want.MatchString(out) {
					err = fmt.Errorf("%s gives %v\n%s", url, from, out)
				}
				return err
			})
		}
	}
}

// What the container opens itself: to Services by name and address, to another pod,
// to the VM by its alias, and to the Services that lead back to its own pod.
func (v *vm) testRequests(t *testing.T) {
	address := get(t, "pod/server", ".status.podIP")
	v.appGets(t, "http://server.default.svc.cluster.local", server)
	v.appGets(t, "http://"+get(t, "service/server", ".spec.clusterIP"), server)
	v.appGets(t, "https://kubernetes.default.svc/livez", "ok")
	v.appGets(t, "http://"+address, server)
	v.appGets(t, "http://"+alias, guest)
	v.appGets(t, "http://"+v.service(v.pod), guest)
	v.appGets(t, "http://"+v.service("vm-redirect-app"), hello)
}

var forwardedTo = regexp.MustCompile(`Forwarding from (127\.0\.0\.1:\d+)`)

// forwarded gets a page by kubectl port-forward from a port of the pod.
func (v *vm) forwarded(t *testing.T, port, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "kubectl", "-n", v.namespace, "port-forward", "pod/"+v.pod, ":"+port)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait() // killed
	}()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	found := forwardedTo.FindStringSubmatch(line)
	if found == nil {
		t.Fatalf("kubectl port-forward printed %q: %v", line, err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+found[1], nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatalf("get a page by port %s: %v", port, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if got := strings.TrimSpace(string(body)); err != nil || got != want {
		t.Errorf("port %s gives %q, want %q: %v", port, got, want, err)
	}
}

// A sidecar that is killed serves again. The connections to the guest and those of the
// container stay.
func (v *vm) testRestartBoth(t *testing.T) {
	opened := dialFrom(t, get(t, "pod/server", ".status.podIP"), "-n", v.namespace, v.pod, "-c", app)
	v.testRestart(t)
	if answer := opened.get(t); !strings.HasSuffix(answer, server) {
		t.Errorf("the connection that the container opened before gives %q", answer)
	}
	v.reachBoth(t)
	v.appGets(t, "http://"+alias, guest)
	v.forwarded(t, "8000", guest)
}
