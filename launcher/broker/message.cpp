#include "message.hpp"

#include <algorithm>
#include <charconv>

namespace gate {

namespace {

bool is_verb(std::string_view word)
{
    return !word.empty() && word.size() <= 16 &&
           std::all_of(word.begin(), word.end(), [](char c) { return c >= 'a' && c <= 'z'; });
}

/* Takes the next line off `text`. */
std::string_view cut_line(std::string_view &text)
{
    const std::size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
    return line;
}

bool continues(std::string_view text, std::size_t at, unsigned char low, unsigned char high)
{
    if (at >= text.size())
        return false;
    const auto byte = static_cast<unsigned char>(text[at]);
    return byte >= low && byte <= high;
}

/* How many bytes of well-formed UTF-8 (RFC 3629, table 3-7 of Unicode) begin here; 0 when none do. */
std::size_t well_formed(std::string_view text, std::size_t at)
{
    const auto first = static_cast<unsigned char>(text[at]);
    if (first < 0x80)
        return 1;
    if (first >= 0xC2 && first <= 0xDF)
        return continues(text, at + 1, 0x80, 0xBF) ? 2 : 0;
    if (first >= 0xE0 && first <= 0xEF) {
        const unsigned char low = first == 0xE0 ? 0xA0 : 0x80, high = first == 0xED ? 0x9F : 0xBF;
        return continues(text, at + 1, low, high) && continues(text, at + 2, 0x80, 0xBF) ? 3 : 0;
    }
    if (first >= 0xF0 && first <= 0xF4) {
        const unsigned char low = first == 0xF0 ? 0x90 : 0x80, high = first == 0xF4 ? 0x8F : 0xBF;
        const bool rest = continues(text, at + 2, 0x80, 0xBF) && continues(text, at + 3, 0x80, 0xBF);
        return continues(text, at + 1, low, high) && rest ? 4 : 0;
    }
    return 0;
}

void escape(std::string &out, char byte)
{
    static const char digits[] = "0123456789abcdef";
    if (byte == '"' || byte == '\\') {
        out += '\\';
        out += byte;
    } else if (byte == '\n') {
        out += "\\n";
    } else if (byte == '\t') {
        out += "\\t";
    } else if (static_cast<unsigned char>(byte) < 0x20 || byte == 0x7F) {
        out += "\\u00";
        out += digits[(byte >> 4) & 0xF];
        out += digits[byte & 0xF];
    } else {
        out += byte;
    }
}

} // namespace

std::optional<Packet> Packet::parse(std::string_view text)
{
    if (text.size() > largest_packet || text.find('\0') != std::string_view::npos)
        return std::nullopt;
    Packet found;
    found.verb_ = cut_line(text);
    if (!is_verb(found.verb_))
        return std::nullopt;
    while (!text.empty()) {
        const std::string_view line = cut_line(text);
        if (line.empty())
            continue;
        const std::size_t blank = line.find(' ');
        if (blank == 0 || blank > 32)
            if (blank != std::string_view::npos || line.size() > 32)
                return std::nullopt;
        const std::string_view value = blank == std::string_view::npos ? std::string_view{} : line.substr(blank + 1);
        found.values_.insert_or_assign(std::string(line.substr(0, blank)), std::string(value));
    }
    return found;
}

std::string Packet::text(std::string_view key, std::size_t longest) const
{
    const auto found = values_.find(key);
    return found == values_.end() ? std::string() : found->second.substr(0, longest);
}

std::int64_t Packet::number(std::string_view key, std::int64_t low, std::int64_t high, std::int64_t otherwise) const
{
    const auto found = values_.find(key);
    if (found == values_.end())
        return otherwise;
    const std::string &word = found->second;
    std::int64_t value = 0;
    const auto result = std::from_chars(word.data(), word.data() + word.size(), value);
    if (result.ec != std::errc() || result.ptr != word.data() + word.size())
        return otherwise;
    return std::clamp(value, low, high);
}

std::string packet(std::string_view verb, Lines lines)
{
    std::string out(verb);
    out += '\n';
    for (const auto &[key, value] : lines) {
        out += key;
        out += ' ';
        for (const char byte : value)
            out += byte == '\n' || byte == '\0' ? ' ' : byte;
        out += '\n';
    }
    return out;
}

std::string json_string(std::string_view text)
{
    std::string out = "\"";
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t length = well_formed(text, at);
        if (length == 1)
            escape(out, text[at]);
        else if (length > 1)
            out += text.substr(at, length);
        else
            out += "\xEF\xBF\xBD";
        at += length ? length : 1;
    }
    return out + '"';
}

void Json::key(std::string_view name)
{
    if (body_.size() > 1)
        body_ += ", ";
    body_ += json_string(name);
    body_ += ": ";
}

Json &Json::number(std::string_view name, std::int64_t value)
{
    return raw(name, std::to_string(value));
}

Json &Json::flag(std::string_view name, bool value)
{
    return raw(name, value ? "true" : "false");
}

Json &Json::text(std::string_view name, std::string_view value)
{
    return raw(name, json_string(value));
}

Json &Json::raw(std::string_view name, std::string_view json)
{
    key(name);
    body_ += json;
    return *this;
}

std::string wrapped(std::string_view key, const Json &value)
{
    return Json().raw(key, value.close()).close();
}

} // namespace gate
