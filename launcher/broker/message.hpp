/* What goes over the broker's socket: packets of lines `key value` from launchers and to them, JSON objects to the control. */
#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace gate {

constexpr std::size_t largest_packet = 64 * 1024;

/* One message: a verb, then a value a key. Whoever sent it may be mistaken or hostile: every value is asked for by its range. */
class Packet {
  public:
    /* Nothing when the first line is no verb (1 to 16 lower-case letters), a line has no key, or a zero byte is inside. */
    static std::optional<Packet> parse(std::string_view text);

    const std::string &verb() const { return verb_; }
    bool has(std::string_view key) const { return values_.find(key) != values_.end(); }

    /* The value, cut to `longest` bytes; "" where there is none. */
    std::string text(std::string_view key, std::size_t longest = 512) const;

    /* A whole number, brought into [low, high]; `otherwise` where there is none or it isn't one. */
    std::int64_t number(std::string_view key, std::int64_t low, std::int64_t high, std::int64_t otherwise) const;

  private:
    std::string verb_;
    std::map<std::string, std::string, std::less<>> values_;
};

using Lines = std::initializer_list<std::pair<std::string_view, std::string>>;

/* The packet as it is sent. Line ends inside a value become blanks. */
std::string packet(std::string_view verb, Lines lines = {});

/* A JSON object, written in the order of calls. Numbers are whole; bytes that are no UTF-8 become U+FFFD. */
class Json {
  public:
    Json &number(std::string_view key, std::int64_t value);
    Json &flag(std::string_view key, bool value);
    Json &text(std::string_view key, std::string_view value);
    Json &raw(std::string_view key, std::string_view json); /* JSON already */
    std::string close() const { return body_ + "}"; }

  private:
    void key(std::string_view name);

    std::string body_ = "{";
};

std::string json_string(std::string_view text);

/* As JSON, `{"key": value}`. */
std::string wrapped(std::string_view key, const Json &value);

} // namespace gate
