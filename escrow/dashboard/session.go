package dashboard

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// A session is a cookie with the reader's key and the time when the session ends, sealed with a secret that belongs to the ledger. So the server
// keeps nothing for a session, sessions go on at another gateway of the same ledger, and no page and no script has the key. Each request
// authenticates with the key itself: when the key is revoked or expires, its sessions end too.

const (
	cookieName  = "tallygate_session"
	sessionTime = 12 * time.Hour
	maxKey      = 512 // bytes; longer than any key
)

var errSession = errors.New("the session is not valid")

func sealer(secret []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// seal returns the cookie's value for a key.
func seal(secret []byte, key string, until time.Time) (string, error) {
	aead, err := sealer(secret)
	if err != nil {
		return "", err
	}
	content := binary.BigEndian.AppendUint64(nil, uint64(until.Unix()))
	return base64.RawURLEncoding.EncodeToString(aead.Seal(nil, nil, append(content, key...), []byte(cookieName))), nil
}

// unseal returns the key in a cookie's value and when the session ends, unless it has ended.
func unseal(secret []byte, value string, now time.Time) (key string, until time.Time, err error) {
	aead, err := sealer(secret)
	if err != nil {
		return "", until, err
	}
	sealed, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil {
		return "", until, errSession
	}
	content, err := aead.Open(nil, nil, sealed, []byte(cookieName))
	if err != nil || len(content) < 8 {
		return "", until, errSession
	}
	if until = time.Unix(int64(binary.BigEndian.Uint64(content)), 0); !now.Before(until) {
		return "", until, errSession
	}
	return string(content[8:]), until, nil
}

// key returns the key of a request's session, and when the session ends.
func (p *pages) key(r *http.Request) (key string, until time.Time, err error) {
	cookie, err := r.Cookie(cookieName)
	if err != nil {
		return "", until, errSession
	}
	secret, err := p.o.Secret(r.Context())
	if err != nil {
		return "", until, err
	}
	return unseal(secret, cookie.Value, time.Now())
}

// setCookie keeps a session in the reader's browser. An empty value ends it.
func (p *pages) setCookie(w http.ResponseWriter, r *http.Request, value string) {
	p.setNamedCookie(w, r, cookieName, value)
}

func (p *pages) setNamedCookie(w http.ResponseWriter, r *http.Request, name, value string) {
	cookie := http.Cookie{
		Name: name, Value: value, Path: p.base, HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil || p.isSecure(r),
		MaxAge: int(sessionTime.Seconds()),
	}
	if value == "" {
		cookie.MaxAge = -1
	}
	http.SetCookie(w, &cookie)
}

// isSecure reports whether the reader's browser reaches this server by HTTPS, through a proxy that the operator trusts.
func (p *pages) isSecure(r *http.Request) bool {
	shop, err := p.o.Shop(r)
	return err == nil && strings.HasPrefix(shop.Origin, "https://")
}

// askLogin shows the form for a key.
func (p *pages) askLogin(w http.ResponseWriter, r *http.Request) {
	p.render(w, http.StatusOK, &visit{pages: p, r: r, page: loginPage})
}

// login begins a session, if the key is valid.
func (p *pages) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
	key := strings.TrimSpace(r.PostFormValue("key"))
	v := &visit{pages: p, r: r, page: loginPage, key: key}
	if key == "" || len(key) > maxKey || strings.ContainsFunc(key, func(c rune) bool { return c <= ' ' || c > '~' }) {
		v.problem = &problem{Status: http.StatusUnauthorized, Title: "This is not a key.", Detail: "A key looks like tg_... and has no spaces."}
		p.render(w, http.StatusUnauthorized, v)
		return
	}
	if _, err := v.call(http.MethodGet, "/agents/me", nil, nil); err != nil {
		v.fails(err)
		p.render(w, v.problem.Status, v)
		return
	}
	secret, err := p.o.Secret(r.Context())
	var sealed string
	if err == nil {
		sealed, err = seal(secret, key, time.Now().Add(sessionTime))
	}
	if err != nil {
		v.fails(err)
		p.render(w, v.problem.Status, v)
		return
	}
	p.setCookie(w, r, sealed)
	http.Redirect(w, r, p.base+p.within(r.PostFormValue("next")), http.StatusSeeOther)
}

// register makes an agent for a visitor, whose session begins. The page then shows the key, once.
func (p *pages) register(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
	order := object{}
	if name := strings.TrimSpace(r.PostFormValue("name")); name != "" {
		order["name"] = name
	}
	v := &visit{pages: p, r: r, page: shopForms}
	made, err := v.call(http.MethodPost, "/agents", nil, order)
	var secret []byte
	if err == nil {
		v.key, v.secret = orEmpty(made["api_key"]), made
		v.Me, err = v.call(http.MethodGet, "/agents/me", nil, nil)
	}
	if err == nil {
		secret, err = p.o.Secret(r.Context())
	}
	if err == nil {
		var sealed string
		if sealed, err = seal(secret, v.key, time.Now().Add(sessionTime)); err == nil {
			p.setCookie(w, r, sealed)
		}
	}
	if err != nil {
		v.fails(err)
	}
	p.again(w, v, "/"+shopForms.path)
}

// logout ends the session in the reader's browser, with the streams of its pages.
func (p *pages) logout(w http.ResponseWriter, r *http.Request) {
	p.streams.end(sessionHash(r))
	p.setCookie(w, r, "")
	p.setNamedCookie(w, r, customerCookie, "")
	http.Redirect(w, r, p.base+"/login", http.StatusSeeOther)
}

// within returns a path below the first page, with its query, if there is such a page; else the first page's. So nobody is led elsewhere.
func (p *pages) within(path string) string {
	at, err := url.Parse(path)
	if err != nil || at.IsAbs() || at.Host != "" || !strings.HasPrefix(at.Path, "/") || findPage(at.Path) == nil {
		return "/"
	}
	return at.RequestURI()
}

// visitOf returns the visit of a request, and when its session ends. The error is errSession if it has none, or if the key has ended.
func (p *pages) visitOf(r *http.Request) (v *visit, until time.Time, err error) {
	key, until, err := p.key(r)
	if err != nil {
		return nil, until, err
	}
	v = &visit{pages: p, r: r, key: key}
	v.Me, err = v.call(http.MethodGet, "/agents/me", nil, nil)
	if refused := (*problem)(nil); errors.As(err, &refused) && refused.Status == http.StatusUnauthorized {
		err = errSession
	}
	return v, until, err
}

// begin returns the visit of a request, if it has a session. Otherwise it has sent the reader to the login.
func (p *pages) begin(w http.ResponseWriter, r *http.Request) *visit {
	v, _, err := p.visitOf(r)
	switch {
	case err == nil:
		return v
	case errors.Is(err, errSession):
		if _, err := r.Cookie(cookieName); err == nil {
			p.setCookie(w, r, "")
		}
	case v == nil:
		p.fail(w, r, http.StatusServiceUnavailable, "The ledger is not open.")
		return nil
	default:
		v.fails(err)
		p.fail(w, r, v.problem.Status, v.problem.Detail)
		return nil
	}
	to := p.base + "/login"
	if here := strings.TrimPrefix(r.URL.RequestURI(), p.base); r.Method == http.MethodGet && here != "/" {
		to += "?next=" + url.QueryEscape(here)
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
	return nil
}

// nonce is the idempotency key of a form: sent twice, the form acts once.
func nonce() string { return "form-" + rand.Text() }
