package discover

import "testing"

func TestEgressSince(t *testing.T) {
	t.Parallel()
	for release, want := range map[string]bool{
		"4.19.0": false, "5.10.0-32-cloud-amd64": false, "5.15.167.4-microsoft-standard-WSL2": false, "5.16.0": true, "6.1.0-41-amd64": true, "6.18.44": true, "": true,
	} {
		if is := egressSince(release); is != want {
			t.Errorf("%q: %v", release, is)
		}
	}
}
