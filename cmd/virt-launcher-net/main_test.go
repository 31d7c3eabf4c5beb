package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
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
		{"stauts", `unknown command "stauts" for "virt-launcher-net": did you mean status? (see --help)`},
		{"node statsu", "did you mean status?"},
		{"help stat", "did you mean status?"},
		{"completion bsh", "did you mean bash or fish or zsh?"},
		{"plan --datpath redirect", "unknown flag: --datpath: did you mean --datapath? (see --help)"},
		{"node install --bin-dir=x", "did you mean --cni-bin-dir?"},
		{"status -netns x", "did you mean --netns?"},
		{"--version", "did you mean version?"},
		{"run --frobnicate", "unknown flag: --frobnicate (see --help)"},
		{"plan extra", "extra"},
		{"completion tcsh", "tcsh"},
		{"completion bash extra", "extra"},
		{"help nosuch", "nosuch"},
		{"help run extra", "run extra"},
		{"plan --frobnicate", "--frobnicate"},
		{"plan -i eth0 -i eth0", "interface eth0 is named twice"},
		{"plan -i eth0,eth0", "repeat the flag"},
		{"plan -i ../x", `"../x" is not an interface name`},
		{"plan -i twentyfive-characters-long", "not an interface name"},
		{"plan --interface= -i eth0", `"" is not an interface name`},
		{"plan --netns=", "--netns"},
		{"plan --interface=", "--interface"},
		{"plan -o yaml", "--output"},
		{"plan --log-level loud", "--log-level"},
		{"plan --log-format xml", "--log-format"},
		{"plan --mac 02:00:00", "--mac"},
		{"plan --guard maybe", "--guard"},
		{"plan --ipv6 maybe", "--ipv6"},
		{"plan --mac 00:00:00:00:00:00", "not a unicast MAC"},
		{"plan --mac 01:00:5e:00:00:01", "not a unicast MAC"},
		{"plan --mac 02:00:00:00:00:01 -i eth0 -i net1", "for one interface"},
		{"plan -i eth0 -i net1 --mac 02:00:00:00:00:01 --mtu net1=1400", "for one interface"},
		{"plan -i eth0 --mac net1=02:00:00:00:00:01", "options of interface net1"},
		{"plan --mac net1=02:00:00", "--mac"},
		{"plan --mac net1=", "--mac"},
		{"plan --mac =02:00:00:00:00:01", "--mac"},
		{"plan --mtu net1=67", "interface net1: MTU 67"},
		{"run -i net1 --dhcp-option net1=53=1", "--dhcp-option"},
		{"run -i eth0 --dhcp-option net1=252=x", "--dhcp-option"},
		{"plan --queues many", "want a whole number"},
		{"plan --queues 0", "--queues"},
		{"plan --queues -1", "--queues"},
		{"plan --queues 257", "257 queues"},
		{"plan --mtu 0", "--mtu"},
		{"plan --mtu -1", "--mtu"},
		{"plan --mtu 67", "MTU 67"},
		{"plan --mtu 65536", "MTU 65536"},
		{"prepare --tap-name tap%d", "tap%d"},
		{"prepare --bridge-name br%d", "br%d"},
		{"prepare --uplink-name up%", "up%"},
		{"prepare --tap-name a/b", "a/b"},
		{"prepare --tap-name sixteencharacter", "sixteencharacter"},
		{"prepare --tap-name vm --bridge-name vm", "vm is used twice"},
		{"prepare --output-dir /nowhere --model a\"b", "model"},
		{"plan --tap-owner root", "such as 107:107"},
		{"plan --tap-owner 0:x", "--tap-owner"},
		{"plan --timeout soon", "--timeout"},
		{"plan --timeout -1s", "--timeout"},
		{"wait --for lease --timeout -1s", "--timeout"},
		{"run --domain vm.xml --start-timeout -1s", "--start-timeout"},
		{"run --domain vm.xml --shutdown-timeout -1s", "--shutdown-timeout"},
		{"run --dns 10.0.0.300", "--dns"},
		{"run --ntp ntp.example.org", "--ntp"},
		{"run --lease-time 0s", "--lease-time"},
		{"run --lease-time 5", "such as 1h, or infinite"},
		{"run --lease-time 2000000h", "duration 2000000h"},
		{"run --default-route nosuch -i eth0", "nosuch"},
		{"run --dhcp-option 53=1", "--dhcp-option"},
		{"run --dhcp-option 252", "--dhcp-option"},
		{"run --connect test:///default", "--domain"},
		{"run --start-timeout 1s", "--domain"},
		{"run --model e1000e", "--output-dir"},
		{"prepare --model e1000e", "--output-dir"},
		{"serve --listen", "--listen"},
		{"serve --listen nonsense", "--listen"},
		{"serve --listen unix:", "--listen"},
		{"serve --listen 127.0.0.1:99999", "--listen"},
		{"", "there is no command: name one"},
		{"--state-dir status", "there is no command: --state-dir has \"status\" as its value"},
		{"domain", "arg"},
		{"wait", "--for is missing: want network or lease"},
		{"wait --for godot", "godot"},
	} {
		t.Run(c.line, func(t *testing.T) {
			// What is not refused must not find a network.
			r := runCLI(t, "", append([]string{"--netns", "/nowhere"}, strings.Fields(c.line)...)...)
			if r.code != exitUsage {
				t.Errorf("exit code %d, want %d", r.code, exitUsage)
			}
			if !strings.Contains(r.stderr, c.want) || strings.Count(r.stderr, "\n") != 1 || r.stdout != "" {
				t.Errorf("printed %q and %q, want one line with %q", r.stdout, r.stderr, c.want)
			}
		})
	}
}

// Where logs are JSON, the error that ends the program is one of them.
func TestErrorIsLogged(t *testing.T) {
	for _, c := range []struct {
		line string
		code int
		want string
	}{
		{"plan --log-format json --netns /nowhere", exitFailed, "/nowhere"},
		{"plan --log-format json --log-level error --netns /nowhere", exitFailed, "/nowhere"},
		{"plan --log-format json --netns /nowhere --mtu 5", exitUsage, "MTU 5"},
		{"plan --log-format json --frobnicate", exitUsage, "--frobnicate"},
		{"frobnicate --log-format json", exitUsage, "frobnicate"},
	} {
		r := runCLI(t, "", strings.Fields(c.line)...)
		var line struct{ Level, Error string }
		if err := json.Unmarshal([]byte(r.stderr), &line); err != nil || r.code != c.code || line.Level != "ERROR" || !strings.Contains(line.Error, c.want) {
			t.Errorf("%s: exit code %d, printed %s", c.line, r.code, r.stderr)
		}
	}
}

// Every verb has help with an example.
func TestHelp(t *testing.T) {
	var check func(*cobra.Command)
	check = func(c *cobra.Command) {
		if c.Name() == "help" || c.Name() == "completion" || c.Parent() != nil && c.Parent().Name() == "completion" {
			return
		}
		if c.Short == "" || !strings.Contains(c.Example, c.CommandPath()) && c.HasParent() {
			t.Errorf("%s has no help with an example", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			check(sub)
		}
	}
	check(newRoot(nil))
	for _, line := range []string{"--help", "run --help", "help", "help run", "completion", "completion bash", "version"} {
		if r := runCLI(t, "", strings.Fields(line)...); r.code != exitDone || r.stdout == "" || r.stderr != "" {
			t.Errorf("%s: %+v", line, r)
		}
	}
	var v versionView
	if err := json.Unmarshal([]byte(runCLI(t, "", "version", "-o", "json").stdout), &v); err != nil || v.Version == "" {
		t.Errorf("version is %+v, error %v", v, err)
	}
}

// The program uses one processor, unless the environment says another number.
func TestProcessors(t *testing.T) {
	const child = "VLN_TEST_PROCESSORS"
	if want := os.Getenv(child); want != "" {
		honorProcessors()
		if got := strconv.Itoa(runtime.GOMAXPROCS(0)); got != want {
			t.Errorf("%s processors, want %s", got, want)
		}
		return
	}
	for want, env := range map[string]string{"1": "", "3": "GOMAXPROCS=3"} {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run", t.Name())
		cmd.Env = append(os.Environ(), child+"="+want, env)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("with %q: %v\n%s", env, err, out)
		}
	}
}

// The heap is collected when the program says, unless the environment does.
func TestCollectAt(t *testing.T) {
	before := debug.SetGCPercent(100)
	defer debug.SetGCPercent(before)
	t.Setenv("GOGC", "100")
	collectAt(60)
	if got := debug.SetGCPercent(100); got != 100 {
		t.Errorf("collected at %d %%, not as the environment says", got)
	}
	os.Unsetenv("GOGC")
	collectAt(60)
	if got := debug.SetGCPercent(100); got != 60 {
		t.Errorf("collected at %d %%, want 60", got)
	}
}
