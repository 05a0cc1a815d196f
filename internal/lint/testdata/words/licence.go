// Under the GNU General Public License. want "a licence that is not ours"
package words
