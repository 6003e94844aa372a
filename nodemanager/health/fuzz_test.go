package health

import "testing"

func FuzzStatusCode(f *testing.F) {
	for _, line := range []string{"HTTP/1.1 200 OK\r\n", "HTTP/1.0 503\n", "HTTP/1.1 99999 x", "HTTP/1.1 -20", "", "\x00"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if status, err := statusCode(line); err == nil && (status < 100 || status > 999) {
			t.Errorf("%q has status %d", line, status)
		}
	})
}
