package server

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A browser runs the scripts of any page with the access of the person who opens it.
func TestPagesOfOthersChangeNothing(t *testing.T) {
	served := 0
	handler := fromOwnPages(false, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served++ }))
	for _, test := range []struct {
		method, host, origin, site string
		want                       int
	}{
		{http.MethodPost, "127.0.0.1:7070", "", "", http.StatusOK}, // no browser
		{http.MethodPost, "zone.example.test", "", "", http.StatusOK},
		{http.MethodPost, "127.0.0.1:7070", "http://127.0.0.1:7070", "same-origin", http.StatusOK},
		{http.MethodPut, "localhost:7070", "http://localhost:7070", "same-origin", http.StatusOK},
		{http.MethodDelete, "[::1]:7070", "http://[::1]:7070", "", http.StatusOK},
		{http.MethodGet, "127.0.0.1:7070", "http://evil.example.test", "cross-site", http.StatusOK}, // whose answer the page is not given
		{http.MethodPost, "127.0.0.1:7070", "http://evil.example.test", "cross-site", http.StatusForbidden},
		{http.MethodPost, "127.0.0.1:7070", "http://evil.example.test", "", http.StatusForbidden},
		{http.MethodDelete, "127.0.0.1:7070", "null", "", http.StatusForbidden},
		{http.MethodPost, "127.0.0.1:7070", "http://127.0.0.1:8080", "same-site", http.StatusForbidden},
		// DNS rebinding: the page's name now has this machine's address.
		{http.MethodPost, "evil.example.test:7070", "http://evil.example.test:7070", "", http.StatusForbidden},
	} {
		request := httptest.NewRequest(test.method, "http://"+test.host+"/v1/apps", strings.NewReader("{}"))
		for name, value := range map[string]string{"Origin": test.origin, "Sec-Fetch-Site": test.site} {
			if value != "" {
				request.Header.Set(name, value)
			}
		}
		before, answer := served, httptest.NewRecorder()
		handler.ServeHTTP(answer, request)
		if answer.Code != test.want || (served > before) != (test.want == http.StatusOK) {
			t.Errorf("%s %s of %q: %d %s", test.method, test.host, test.origin, answer.Code, answer.Body)
		}
	}
	request := httptest.NewRequest(http.MethodPost, "http://zone.example.test/v1/apps", nil)
	request.Header.Set("Origin", "http://zone.example.test")
	named := httptest.NewRecorder()
	if fromOwnPages(true, http.NotFoundHandler()).ServeHTTP(named, request); named.Code != http.StatusNotFound {
		t.Errorf("a zone that others connect to has no name of its own: %d", named.Code)
	}
}
