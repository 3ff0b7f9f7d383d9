// The client golang.org/x/oauth2: tokens of a client in both styles, for two resources, of a user by code, and by a
// signed assertion.
//
// The argument is JSON: the `url` of the server, the `client`, its `secret`, the `callback` registered for it, and the
// `resources`; and for the assertion, the `assertion_url`, the private `key` in PEM, and the `email` of its issuer and
// the `subject`. A user consents without a page. Prints the tokens by style and by grant, and the server's errors.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/oauth2/jwt"
)

type options struct {
	URL, Client, Secret, Callback, Key, Email, Subject string
	AssertionURL                                        string `json:"assertion_url"`
	Resources                                           []string
}

const verifier = "a-verifier-of-at-least-43-characters-0123456789"

var given options

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

// refusal returns the server's error code.
func refusal(_ *oauth2.Token, err error) string {
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) {
		return fmt.Sprint(err)
	}
	var fields struct{ Error string }
	check(json.Unmarshal(refused.Body, &fields))
	return fields.Error
}

func credentials(secret string, style oauth2.AuthStyle) *clientcredentials.Config {
	return &clientcredentials.Config{
		ClientID:       given.Client,
		ClientSecret:   secret,
		TokenURL:       given.URL + "/oauth2/token",
		Scopes:         []string{"crm.read", "crm.write"},
		AuthStyle:      style,
		EndpointParams: url.Values{"resource": given.Resources},
	}
}

// codeOf sends the user to the server, and returns the code of the redirect back.
func codeOf(address string) string {
	stay := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response := must(stay.Get(address))
	response.Body.Close()
	return must(response.Location()).Query().Get("code")
}

func main() {
	check(json.Unmarshal([]byte(os.Args[1]), &given))
	ctx := context.Background()
	styles := map[string]oauth2.AuthStyle{
		"header": oauth2.AuthStyleInHeader,
		"params": oauth2.AuthStyleInParams,
		"found":  oauth2.AuthStyleAutoDetect,
	}
	granted, refused := map[string]*oauth2.Token{}, map[string]string{}
	for name, style := range styles {
		granted[name] = must(credentials(given.Secret, style).Token(ctx))
		refused[name] = refusal(credentials("wrong", style).Token(ctx))
	}

	app := oauth2.Config{
		ClientID:     given.Client,
		ClientSecret: given.Secret,
		RedirectURL:  given.Callback,
		Scopes:       []string{"read"},
		Endpoint: oauth2.Endpoint{
			AuthURL:   given.URL + "/oauth2/authorize",
			TokenURL:  given.URL + "/oauth2/token",
			AuthStyle: oauth2.AuthStyleInHeader,
		},
	}
	digest := sha256.Sum256([]byte(verifier))
	address := app.AuthCodeURL("state",
		oauth2.SetAuthURLParam("code_challenge", base64.RawURLEncoding.EncodeToString(digest[:])),
		oauth2.SetAuthURLParam("code_challenge_method", "S256"))
	first := must(app.Exchange(ctx, codeOf(address), oauth2.SetAuthURLParam("code_verifier", verifier)))
	expired := *first
	expired.Expiry = time.Now().Add(-time.Minute)
	second := must(app.TokenSource(ctx, &expired).Token())
	refused["reused"] = refusal(app.TokenSource(ctx, &expired).Token())

	robot := jwt.Config{
		Email:      given.Email,
		PrivateKey: []byte(given.Key),
		Subject:    given.Subject,
		Scopes:     []string{"crm.read"},
		TokenURL:   given.AssertionURL,
		Audience:   given.AssertionURL,
	}
	results := map[string]any{
		"granted":   granted,
		"refused":   refused,
		"user":      []*oauth2.Token{first, second},
		"assertion": must(robot.TokenSource(ctx).Token()),
	}
	fmt.Println(string(must(json.Marshal(results))))
}
