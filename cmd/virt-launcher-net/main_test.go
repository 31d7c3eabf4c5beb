package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// result is what a command line came to.
type result struct {
	code           int
	stdout, stderr string
}

func runCLI(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := execute(t.Context(), args, strings.NewReader(stdin), &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

func TestUsageErrors(t *testing.T) {
	for _, c := range []struct {
		line string
		want string
	}{
		{"frobnicate", `unknown command "frobnicate"`},
		{"plan extra", "extra"},
		{"plan --frobnicate", "--frobnicate"},
		{"plan -i eth0 -i eth0", `--interface "eth0"`},
		{"plan --interface=", "--interface"},
		{"plan -o yaml", "--output"},
		{"plan --log-level loud", "--log-level"},
		{"plan --log-format xml", "--log-format"},
		{"plan --mac 02:00:00", "--mac"},
		{"plan --guard maybe", "--guard"},
		{"plan --ipv6 maybe", "--ipv6"},
		{"plan --queues many", "--queues"},
		{"plan --tap-owner root", "--tap-owner"},
		{"plan --tap-owner 0:x", "--tap-owner"},
		{"plan --timeout soon", "--timeout"},
		{"run --dns 10.0.0.300", "--dns"},
		{"run --ntp ntp.example.org", "--ntp"},
		{"run --lease-time 0s", "--lease-time"},
		{"run --dhcp-option 53=1", "--dhcp-option"},
		{"run --dhcp-option 252", "--dhcp-option"},
		{"run --connect test:///default", "--domain"},
		{"run --start-timeout 1s", "--domain"},
		{"run --model e1000e", "--output-dir"},
		{"prepare --model e1000e", "--output-dir"},
		{"serve --listen", "--listen"},
		{"domain", "arg"},
		{"wait", "--for"},
		{"wait --for godot", "godot"},
	} {
		t.Run(c.line, func(t *testing.T) {
			r := runCLI(t, "", strings.Fields(c.line)...)
			if r.code != exitUsage {
				t.Errorf("exit code %d, want %d", r.code, exitUsage)
			}
			if !strings.Contains(r.stderr, c.want) || strings.Count(r.stderr, "\n") != 1 || r.stdout != "" {
				t.Errorf("printed %q and %q, want one line with %q", r.stdout, r.stderr, c.want)
			}
		})
	}
}

// Every verb has help with an example.
func TestHelp(t *testing.T) {
	var check func(*cobra.Command)
	check = func(c *cobra.Command) {
		if c.Name() == "help" || c.Name() == "completion" || c.Parent() != nil && c.Parent().Name() == "completion" {
			return
		}
		if c.Short == "" || !strings.Contains(c.Example, "virt-launcher-net "+c.Name()) && c.HasParent() {
			t.Errorf("%s has no help with an example", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			check(sub)
		}
	}
	check(newRoot())
	for _, line := range []string{"--help", "run --help", "completion bash", "version"} {
		if r := runCLI(t, "", strings.Fields(line)...); r.code != exitDone || r.stdout == "" || r.stderr != "" {
			t.Errorf("%s: %+v", line, r)
		}
	}
	var v versionView
	if err := json.Unmarshal([]byte(runCLI(t, "", "version", "-o", "json").stdout), &v); err != nil || v.Version == "" {
		t.Errorf("version is %+v, error %v", v, err)
	}
}
