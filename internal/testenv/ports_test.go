package testenv

import "testing"

func TestAPortIsGivenOnce(t *testing.T) {
	given := map[int]bool{}
	for range 20 {
		port, err := FreePort()
		if err != nil {
			t.Fatal(err)
		}
		if given[port] || claim(port) {
			t.Errorf("%d is given again", port)
		}
		given[port] = true
	}
}
